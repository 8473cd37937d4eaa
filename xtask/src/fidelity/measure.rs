//! Measurement of a cell with the binary: a conversion in a process of its own, then two evaluations.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::catalogue::{CellId, Setup, Text, Way};
use super::scores::{Scorer, Scores};
use super::store::{Cell, Evaluated};
use crate::cargo::{root, transmla};

/// The binary, a folder for what is temporary, and perhaps one for models that are kept.
#[derive(Debug)]
pub struct Tool {
    binary: PathBuf,
    folder: PathBuf,
    models: Option<PathBuf>,
    revision: Option<String>,
}

/// What was asked for of a cell.
#[derive(Debug, Default)]
pub struct Found {
    pub cell: Option<Cell>,
    pub scores: Option<Scores>,
}

/// Output of `transmla convert`.
#[derive(Debug, Deserialize)]
struct Converted {
    freqfold: Option<usize>,
    cpu_seconds: Option<f64>,
    peak_memory_bytes: Option<u64>,
}

/// Output of `transmla inspect`.
#[derive(Debug, Deserialize)]
struct Inspected {
    kv_cache: Cache,
}

#[derive(Debug, Deserialize)]
struct Cache {
    numbers_per_token_and_layer: usize,
}

impl Tool {
    /// Builds the binary; models go into `models`, else into `folder` for as long as they are needed.
    pub fn build(folder: &Path, models: Option<&Path>) -> anyhow::Result<Self> {
        let binary = transmla()?;
        Ok(Self {
            binary,
            folder: folder.to_path_buf(),
            models: models.map(Path::to_path_buf),
            revision: revision(),
        })
    }

    /// Converts a model, measures it if `whole`, scores it on so many items of each task, and removes it.
    ///
    /// A model that was kept is not converted again, unless its conversion is measured.
    pub fn measure(&self, setup: &Setup, id: CellId, whole: bool, tasks: Option<usize>) -> anyhow::Result<Found> {
        let name = setup.model.name_of(id).replace('/', "-");
        let target = match &self.models {
            Some(models) => models.join(name),
            None => self.folder.join("model"),
        };
        let (model, converted) = match id.way {
            Way::Original => (setup.path.as_os_str(), None),
            _ if !whole && target.join("config.json").exists() => (target.as_os_str(), None),
            _ => (target.as_os_str(), Some(self.convert(setup, id, &target)?)),
        };
        let mut found = Found::default();
        if whole {
            found.cell = Some(self.cell(setup, id, model, converted.as_ref())?);
        }
        if let Some(limit) = tasks {
            let (binary, folder) = (&self.binary, &self.folder);
            found.scores = Some(Scorer { binary, folder, limit }.score(setup, model)?);
        }
        if converted.is_some() && self.models.is_none() {
            std::fs::remove_dir_all(&target).with_context(|| format!("cannot remove {}", target.display()))?;
        }
        Ok(found)
    }

    fn cell(&self, setup: &Setup, id: CellId, model: &OsStr, converted: Option<&Converted>) -> anyhow::Result<Cell> {
        let inspected: Inspected = self.run(Command::new(&self.binary).args(["inspect", "--model-path"]).arg(model))?;
        Ok(Cell {
            kv_numbers: inspected.kv_cache.numbers_per_token_and_layer,
            like: self.evaluate(setup, model, &setup.like)?,
            unlike: self.evaluate(setup, model, &setup.unlike)?,
            refine: if id.way == Way::Refined { setup.refine } else { 0 },
            freqfold: converted.and_then(|it| it.freqfold),
            cpu_seconds: converted.and_then(|it| it.cpu_seconds),
            peak_bytes: converted.and_then(|it| it.peak_memory_bytes),
            revision: self.revision.clone(),
        })
    }

    /// Converts without evaluation, so that time and memory are those of the conversion alone.
    fn convert(&self, setup: &Setup, cell: CellId, target: &Path) -> anyhow::Result<Converted> {
        let (rope, rank) = cell.budget;
        let mut command = Command::new(&self.binary);
        command.arg("convert").arg("--model-path").arg(&setup.path);
        command.arg("--save-path").arg(target).arg("--force");
        command.arg("--cal-dataset").arg(&setup.calibration.dataset);
        command.args(["--dtype", "fp32", "--ppl-eval-batch-size", "0"]);
        for (option, number) in [
            ("--qk-mqa-dim", rope),
            ("--kv-lora-rank", rank),
            ("--cal-nsamples", setup.samples),
            ("--cal-max-seqlen", setup.sample_tokens),
        ] {
            command.arg(option).arg(number.to_string());
        }
        match cell.way {
            Way::Original | Way::Transmla => command.args(["--method", "transmla", "--freqfold", setup.freqfold]),
            Way::Coherent | Way::Refined => {
                let steps = if cell.way == Way::Refined { setup.refine } else { 0 };
                command.args(["--method", "coherent", "--refine", &steps.to_string()]);
                command.args(["--cal-noise", setup.noise])
            }
        };
        self.run(&mut command)
    }

    fn evaluate(&self, setup: &Setup, model: &OsStr, text: &Text) -> anyhow::Result<Evaluated> {
        let mut command = Command::new(&self.binary);
        command.arg("eval").arg("--model-path").arg(model);
        command.arg("--dataset").arg(&text.dataset);
        command.args(["--seqlen", &setup.window_tokens.to_string()]);
        self.run(command.args(["--max-windows", &setup.windows.to_string()]))
    }

    /// Runs the binary and parses its JSON; its messages become part of the error if it fails.
    fn run<T: serde::de::DeserializeOwned>(&self, command: &mut Command) -> anyhow::Result<T> {
        let output = command.arg("--json").output();
        let output = output.with_context(|| format!("cannot start {}", self.binary.display()))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            let error = said.find("error:").map_or("", |start| said[start..].trim_end());
            bail!("{command:?} failed ({})\n{error}", output.status);
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("{command:?} gave another form of JSON"))
    }
}

/// The commit that is checked out, with a mark if there are changes.
fn revision() -> Option<String> {
    let git = Command::new("git")
        .current_dir(root())
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .output()
        .ok()?;
    let name = String::from_utf8(git.stdout).ok()?.trim().to_owned();
    (git.status.success() && !name.is_empty()).then_some(name)
}
