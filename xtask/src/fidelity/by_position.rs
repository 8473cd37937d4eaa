//! Measurement by position with the binary: a conversion, an evaluation of long windows, and needles in long texts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::catalogue::{CellId, Setup, Way};
use super::measure::Tool;
use super::positions::{Positions, Range, Variant, Windows};
use super::scores::{self, Score};

/// Tokens of the shortest text that a needle is in.
const SHORTEST: usize = 1024;

/// Output of `transmla eval --by-position`.
#[derive(Debug, Deserialize)]
struct Evaluated {
    by_position: Vec<Range>,
}

/// Measures those variants of a model that are selected by name and are not there with the same settings; calls `keep` after each.
pub fn measure(
    tool: &Tool,
    setup: &Setup,
    settings: Windows,
    selected: &dyn Fn(&str) -> bool,
    known: &mut BTreeMap<String, Positions>,
    keep: &mut dyn FnMut(&BTreeMap<String, Positions>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for variant in Variant::all(setup.model) {
        let key = variant.key();
        let fresh = known.get(&key).is_some_and(|known| known.settings == settings);
        let name = variant.name(setup.model);
        if fresh || !(selected(&name) || variant.cell == CellId::ORIGINAL) {
            continue;
        }
        println!("by position: {name}");
        let setup = variant.setup(setup);
        let folder = tool.kept(&name);
        let model = match variant.cell.way {
            Way::Original => setup.path.as_os_str(),
            _ => {
                if !folder.join("config.json").exists() {
                    tool.convert(&setup, variant.cell, &folder)?;
                }
                folder.as_os_str()
            }
        };
        let found = positions(tool, &setup, variant, model, settings).with_context(|| format!("cell {name}"))?;
        known.insert(key, found);
        keep(known)?;
    }
    Ok(())
}

fn positions(
    tool: &Tool,
    setup: &Setup,
    variant: Variant,
    model: &OsStr,
    settings: Windows,
) -> anyhow::Result<Positions> {
    let eval = || {
        let mut command = Command::new(tool.binary());
        command.arg("eval").arg("--model-path").arg(model);
        command.args(["--batch-size", "1"]);
        command
    };
    let mut command = eval();
    command.arg("--dataset").arg(&setup.like.dataset).arg("--by-position");
    command.args(["--seqlen", &settings.tokens.to_string()]);
    let measured: Evaluated = tool.run(command.args(["--max-windows", &settings.windows.to_string()]))?;
    let lengths = std::iter::successors(Some(SHORTEST), |length| Some(2 * length));
    let lengths: Vec<usize> = lengths.take_while(|length| *length <= settings.tokens).collect();
    let needles = match settings.needles {
        0 => BTreeMap::new(),
        limit => needles(tool, eval(), &lengths, limit)?,
    };
    Ok(Positions {
        settings,
        sample_tokens: (variant.cell.way != Way::Original).then_some(setup.sample_tokens),
        ranges: measured.by_position,
        needles,
    })
}

/// Share of needles found, by length of the text.
fn needles(
    tool: &Tool,
    mut command: Command,
    lengths: &[usize],
    limit: usize,
) -> anyhow::Result<BTreeMap<usize, Score>> {
    let results = tempfile::tempdir_in(tool.folder()).context("cannot create a folder for results")?;
    let file = results.path().join("needles.json");
    let list: Vec<String> = lengths.iter().map(usize::to_string).collect();
    command.args(["--tasks", "needle", "--needle-lengths", &list.join(",")]);
    command
        .args(["-q", "--limit", &limit.to_string(), "--output"])
        .arg(&file);
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} failed: {}", said.trim_end());
    }
    let names: Vec<String> = lengths.iter().map(|length| format!("needle_{length}")).collect();
    let tasks: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "acc")).collect();
    let mut found = scores::read(&file, &tasks)?;
    let by_length = lengths.iter().zip(&names);
    Ok(by_length
        .filter_map(|(length, name)| Some((*length, found.remove(name)?)))
        .collect())
}
