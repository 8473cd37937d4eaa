//! `cargo xtask gpu-report`: what a GPU makes of decoding and of a conversion, checked and timed by one command.

mod deadline;
mod markdown;
mod models;
mod program;
mod stages;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use serde_json::{Map, Value, json};

use crate::bench::Device;
use crate::cargo;
use deadline::Deadline;
use program::Programs;

/// Check and time a GPU: the decoding kernels, decoding by whole models, a conversion.
///
/// The kernels are compared with plain tensor operations and timed beside PyTorch's attention and FlashMLA, where python3 has
/// them. Models of random weights in the shape of Llama 2 7B, with multi-head attention and with a latent of 512 + 64, decode
/// from caches of several lengths. A model in the shape of Llama 3 8B is converted by both methods. Models have as many layers
/// as --layers says. All of it takes some 8 minutes on a data-centre GPU; a stage that the time does not suffice for is left out,
/// and said to be.
///
/// report.md and report.json are written to --output. For a machine without cargo, --pack puts this program and those that it
/// starts into a folder: there, run `FOLDER/xtask gpu-report --programs FOLDER`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask gpu-report --device cuda --output report
  cargo xtask gpu-report --device cuda --pack programs")]
pub struct Arguments {
    /// What to compute on: cuda, cuda:N, wgpu or wgpu:N
    #[arg(long, value_name = "DEVICE", default_value = "cuda")]
    device: Device,

    /// Folder for report.md and report.json
    #[arg(long, value_name = "FOLDER", default_value = "gpu-report")]
    output: PathBuf,

    /// Folder with the programs transmla and gpu; they are built otherwise
    #[arg(long, value_name = "FOLDER")]
    programs: Option<PathBuf>,

    /// Build the programs into a folder, and stop
    #[arg(long, value_name = "FOLDER", conflicts_with = "programs")]
    pack: Option<PathBuf>,

    /// Stages to run: check, attend, decode, convert
    #[arg(
        long,
        value_name = "STAGE,…",
        default_value = "check,attend,decode,convert",
        value_delimiter = ','
    )]
    stages: Vec<String>,

    /// Layers of the models, which have 32
    #[arg(long, value_name = "N", default_value_t = 4)]
    layers: usize,

    /// Seconds after which no stage is begun, and none goes on
    #[arg(long, value_name = "SECONDS", default_value_t = 480)]
    seconds: u64,
}

/// Runs the task.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let feature = arguments.device.feature().context("--device is to be cuda or wgpu")?;
    if let Some(folder) = &arguments.pack {
        return pack(feature, folder);
    }
    let known = ["check", "attend", "decode", "convert"];
    if let Some(unknown) = arguments.stages.iter().find(|stage| !known.contains(&stage.as_str())) {
        bail!("'{unknown}' is no stage: they are {}", known.join(", "));
    }
    let programs = match &arguments.programs {
        Some(folder) => Programs::of(folder)?,
        None => build(feature)?,
    };
    let deadline = Deadline::in_seconds(arguments.seconds);
    fs::create_dir_all(&arguments.output)?;
    let scratch = tempfile::tempdir()?;
    let session = stages::Session {
        programs: &programs,
        device: &arguments.device.to_string(),
        layers: arguments.layers,
        scratch: scratch.path(),
        deadline,
    };
    let mut report = Map::new();
    report.insert("machine".into(), program::machine());
    report.insert("device".into(), json!(arguments.device.to_string()));
    report.insert("layers".into(), json!(arguments.layers));
    for stage in known
        .into_iter()
        .filter(|known| arguments.stages.iter().any(|stage| stage == known))
    {
        eprintln!("{stage}: {} s left", deadline.left().as_secs());
        let started = Instant::now();
        let mut found = match stage {
            "check" => session.check(),
            "attend" => session.attend(),
            "decode" => session.decode(),
            _ => session.convert(),
        };
        found.insert("seconds".into(), json!(started.elapsed().as_secs_f64()));
        report.insert(stage.into(), Value::Object(found));
        // After each stage: what comes back from a machine that is taken away is not nothing.
        write(&arguments.output, &report)?;
    }
    let wrong = report.get("check").map_or(0, markdown::wrong_results);
    ensure!(wrong == 0, "{wrong} results of the kernels are wrong");
    Ok(())
}

fn write(folder: &Path, report: &Map<String, Value>) -> anyhow::Result<()> {
    fs::write(folder.join("report.json"), serde_json::to_string_pretty(report)?)?;
    fs::write(folder.join("report.md"), markdown::render(report))?;
    Ok(())
}

fn build(feature: &str) -> anyhow::Result<Programs> {
    let features = format!("{feature},transmla-benches/gpu");
    let [transmla, gpu] = cargo::programs(["transmla", "gpu"], &features)?;
    Ok(Programs { transmla, gpu })
}

/// The programs and this one, without symbols where `strip` is there.
fn pack(feature: &str, folder: &Path) -> anyhow::Result<()> {
    let Programs { transmla, gpu } = build(feature)?;
    fs::create_dir_all(folder)?;
    for (program, name) in [
        (transmla, "transmla"),
        (gpu, "gpu"),
        (std::env::current_exe()?, "xtask"),
    ] {
        let target = folder.join(name);
        fs::copy(&program, &target).with_context(|| format!("cannot copy {}", program.display()))?;
        program::strip(&target);
    }
    println!(
        "{0}: now run {0}/xtask gpu-report --programs {0} on a machine with a GPU",
        folder.display()
    );
    Ok(())
}
