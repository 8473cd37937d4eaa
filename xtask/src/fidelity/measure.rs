//! Measurement of a cell with the binary: a conversion in a process of its own, then two evaluations.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde::Deserialize;

use super::catalogue::{CellId, Setup, Text, Training, Way};
use super::evaluated::Evaluated;
use super::scores::{Scorer, Scores};
use super::store::Cell;
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

/// Output of `transmla convert` and of `transmla heal`.
#[derive(Debug, Deserialize)]
pub struct Made {
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

    /// The program that measures.
    pub fn binary(&self) -> &Path {
        &self.binary
    }

    /// A folder for what is temporary.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The folder of a model that is kept under its full name, or of one that is not.
    pub fn kept(&self, name: &str) -> PathBuf {
        self.models
            .as_ref()
            .unwrap_or(&self.folder)
            .join(name.replace('/', "-"))
    }

    /// Converts a model, measures it if `whole`, scores it on so many items of each task, and removes it.
    ///
    /// A model that was kept is not converted again, unless its conversion is measured.
    pub fn measure(&self, setup: &Setup, id: CellId, whole: bool, tasks: Option<usize>) -> anyhow::Result<Found> {
        let target = self.place(setup, id);
        let (model, converted) = match id.way {
            Way::Original => (setup.path.as_os_str(), None),
            _ if !whole && target.join("config.json").exists() => (target.as_os_str(), None),
            Way::Healed => (target.as_os_str(), Some(self.heal(setup, id, &target)?)),
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
            remove(&target)?;
        }
        Ok(found)
    }

    /// Where a model is written: where it is kept, or among what is temporary.
    fn place(&self, setup: &Setup, id: CellId) -> PathBuf {
        let name = setup.model.name_of(id).replace('/', "-");
        self.models.as_ref().unwrap_or(&self.folder).join(name)
    }

    fn cell(&self, setup: &Setup, id: CellId, model: &OsStr, converted: Option<&Made>) -> anyhow::Result<Cell> {
        let inspected: Inspected = self.run(Command::new(&self.binary).args(["inspect", "--model-path"]).arg(model))?;
        Ok(Cell {
            kv_numbers: inspected.kv_cache.numbers_per_token_and_layer,
            like: self.evaluate(setup, model, &setup.like)?,
            unlike: self.evaluate(setup, model, &setup.unlike)?,
            refine: setup.refine_steps(id.way),
            heal: (id.way == Way::Healed).then(|| setup.heal.clone()),
            freqfold: converted.and_then(|it| it.freqfold),
            cpu_seconds: converted.and_then(|it| it.cpu_seconds),
            peak_bytes: converted.and_then(|it| it.peak_memory_bytes),
            revision: self.revision.clone(),
        })
    }

    /// A conversion without evaluation, so that time and memory are those of the conversion alone; the method is still to be said.
    pub fn conversion(&self, setup: &Setup, (rope, rank): (usize, usize), target: &Path) -> Command {
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
        command
    }

    /// Converts a model.
    pub fn convert(&self, setup: &Setup, cell: CellId, target: &Path) -> anyhow::Result<Made> {
        let mut command = self.conversion(setup, cell.budget, target);
        match cell.way {
            Way::Original | Way::Transmla => command.args(["--method", "transmla", "--freqfold", setup.freqfold]),
            Way::Coherent | Way::Refined | Way::Healed => {
                let steps = setup.refine_steps(cell.way);
                command.args(["--method", "coherent", "--refine", &steps.to_string()]);
                command.args(["--cal-noise", setup.noise])
            }
        };
        self.run(&mut command)
    }

    /// Heals the refined model of the same budget, which is made unless it was kept.
    fn heal(&self, setup: &Setup, cell: CellId, target: &Path) -> anyhow::Result<Made> {
        let refined = CellId {
            way: Way::Refined,
            ..cell
        };
        let start = self.place(setup, refined);
        let is_kept = self.models.is_some();
        if !(is_kept && start.join("config.json").exists()) {
            self.convert(setup, refined, &start)?;
        }
        let Training {
            steps,
            samples,
            sequences,
            tokens,
            learning_rate,
        } = &setup.heal;
        let mut command = Command::new(&self.binary);
        command.arg("heal").arg("--model-path").arg(&start);
        command.arg("--against").arg(&setup.path);
        command.arg("--save-path").arg(target).arg("--force");
        let mut texts = setup.calibration.dataset.clone();
        texts.push(":1,self:1");
        command.arg("--cal-dataset").arg(texts);
        command.args(["--train", "all", "--cal-noise", setup.noise]);
        command.args(["--learning-rate", &learning_rate.to_string()]);
        for (option, number) in [
            ("--steps", steps),
            ("--batch-size", sequences),
            ("--micro-batch", sequences),
            ("--cal-nsamples", samples),
            ("--cal-max-seqlen", tokens),
        ] {
            command.arg(option).arg(number.to_string());
        }
        let made = self.run(&mut command)?;
        if !is_kept {
            remove(&start)?;
        }
        Ok(made)
    }

    /// The perplexity of a model on a text.
    pub fn evaluate(&self, setup: &Setup, model: &OsStr, text: &Text) -> anyhow::Result<Evaluated> {
        let mut command = Command::new(&self.binary);
        command.arg("eval").arg("--model-path").arg(model);
        command.arg("--dataset").arg(&text.dataset);
        command.args(["--seqlen", &setup.window_tokens.to_string()]);
        self.run(command.args(["--max-windows", &setup.windows.to_string()]))
    }

    /// Runs the binary and parses its JSON; its messages become part of the error if it fails.
    pub fn run<T: serde::de::DeserializeOwned>(&self, command: &mut Command) -> anyhow::Result<T> {
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

fn remove(folder: &Path) -> anyhow::Result<()> {
    std::fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))
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
