//! Measurement of what devices that share the heads hold, with the binary: a conversion, an inspection and two evaluations.

use std::collections::BTreeMap;
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::catalogue::Setup;
use super::devices::{Form, Held};
use super::measure::{Made, Tool};

/// Output of `transmla inspect`.
#[derive(Debug, Deserialize)]
struct Inspected {
    layers: usize,
    parameters: u64,
    kv_cache: Cache,
}

#[derive(Debug, Deserialize)]
struct Cache {
    numbers_per_device: BTreeMap<usize, usize>,
}

/// Measures those forms of a model that are selected by name and are not there with as many steps; calls `keep` after each.
pub fn measure(
    tool: &Tool,
    setup: &Setup,
    again: bool,
    selected: &dyn Fn(&str) -> bool,
    known: &mut BTreeMap<String, Held>,
    keep: &mut dyn FnMut(&BTreeMap<String, Held>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for form in Form::all(setup.model) {
        let (key, name) = (form.key(), form.name(setup.model));
        let steps = if *form == Form::Original { 0 } else { setup.refine };
        let fresh = known.get(&key).is_some_and(|held| held.refine == steps);
        if (fresh && !again) || !(selected(&name) || *form == Form::Original) {
            continue;
        }
        println!("on devices: {name}");
        let found = held(tool, setup, *form).with_context(|| format!("cell {name}"))?;
        println!(
            "  {:?} numbers on 1, 2, 4 and 8 devices, perplexity {:.4} and {:.4}",
            found.numbers.values().collect::<Vec<_>>(),
            found.like.perplexity,
            found.unlike.perplexity
        );
        known.insert(key, found);
        keep(known)?;
    }
    Ok(())
}

fn held(tool: &Tool, setup: &Setup, form: Form) -> anyhow::Result<Held> {
    let folder = tool.kept(&form.name(setup.model));
    let (model, refine) = match form {
        Form::Original => (setup.path.as_os_str(), 0),
        Form::Latents {
            groups,
            rope,
            rank,
            tied,
        } => {
            if !folder.join("config.json").exists() {
                let mut command = tool.conversion(setup, (rope, rank), &folder);
                command.args(["--method", "coherent", "--refine", &setup.refine.to_string()]);
                command.args(["--cal-noise", setup.noise, "--latent-groups", &groups.to_string()]);
                command.arg(format!("--tied={tied}"));
                tool.run::<Made>(&mut command)?;
            }
            (folder.as_os_str(), setup.refine)
        }
    };
    let mut inspect = Command::new(tool.binary());
    let found: Inspected = tool.run(inspect.args(["inspect", "--model-path"]).arg(model))?;
    Ok(Held {
        numbers: found.kv_cache.numbers_per_device,
        layers: found.layers,
        parameters: found.parameters,
        refine,
        like: tool.evaluate(setup, model, &setup.like)?,
        unlike: tool.evaluate(setup, model, &setup.unlike)?,
    })
}
