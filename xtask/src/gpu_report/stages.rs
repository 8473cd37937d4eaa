//! What is measured, a stage at a time. A failure is a result, too: it is told, and the next stage runs.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Map, Value, json};

use super::deadline::Deadline;
use super::models;
use super::program::{Outcome, Programs, run};

/// PyTorch's and FlashMLA's part.
const COMPARE: &str = include_str!("compare.py");

/// Batches and tokens of the caches of the kernels.
const LATENT_SIZES: [(usize, usize); 9] = [
    (1, 1024),
    (1, 4096),
    (1, 32768),
    (16, 1024),
    (16, 4096),
    (16, 32768),
    (128, 1024),
    (128, 4096),
    (128, 8192),
];

/// The same for grouped and multi-head attention, whose caches are larger.
const GROUPED_SIZES: [(usize, usize); 4] = [(1, 4096), (1, 32768), (16, 4096), (64, 4096)];

/// Batches and tokens of the caches of whole models.
const DECODE_SIZES: [(&str, &str); 2] = [("1,8", "1024,8192,32768"), ("64", "1024,4096")];

/// Sequences and tokens that a conversion is calibrated on.
const CALIBRATION: (usize, usize) = (128, 256);

/// What all stages need.
pub struct Session<'a> {
    pub programs: &'a Programs,
    pub device: &'a str,
    pub layers: usize,
    /// A folder for models.
    pub scratch: &'a Path,
    pub deadline: Deadline,
}

/// What a stage found.
type Found = Map<String, Value>;

impl Session<'_> {
    /// The kernels against plain tensor operations.
    pub fn check(&self) -> Found {
        let outcome = self.run(Command::new(&self.programs.gpu).args(["check", self.device]));
        let mut found = Found::new();
        found.insert("results".into(), Value::Array(outcome.objects()));
        note_failure(&mut found, "kernels", &outcome);
        found
    }

    /// Times of the kernels, and of PyTorch's and FlashMLA's on the same problems.
    pub fn attend(&self) -> Found {
        let problems = problems();
        let ours = self.run(
            Command::new(&self.programs.gpu)
                .args(["attend", self.device])
                .args(&problems),
        );
        let mut python = Command::new("python3");
        let theirs = self.run(python.args(["-c", COMPARE]).args(&problems));
        let mut found = Found::new();
        found.insert("kernels".into(), Value::Array(ours.objects()));
        found.insert("others".into(), Value::Array(theirs.objects()));
        note_failure(&mut found, "kernels", &ours);
        note_failure(&mut found, "others", &theirs);
        found
    }

    /// Whole models with multi-head attention and with a latent cache.
    pub fn decode(&self) -> Found {
        let mut found = Found::new();
        let models = [
            self.model("grouped", &models::llama_2_7b(self.layers)),
            self.model("latent", &models::latent_7b(self.layers)),
        ];
        let [grouped, latent] = match models {
            [Ok(grouped), Ok(latent)] => [grouped, latent],
            [grouped, latent] => {
                for outcome in [grouped, latent].into_iter().filter_map(Result::err) {
                    note_failure(&mut found, "models", &outcome);
                }
                return found;
            }
        };
        let mut runs = Vec::new();
        for (batch, context) in DECODE_SIZES {
            let mut command = Command::new(&self.programs.transmla);
            command
                .args(["bench", "--model-path"])
                .arg(&latent)
                .arg("--against")
                .arg(&grouped);
            command.args(["--device", self.device, "--cache-dtype", "bf16", "--new-tokens", "8"]);
            command.args(["--context", context, "--batch", batch, "--json", "--quiet"]);
            let outcome = self.run(&mut command);
            runs.push(json!({
                "result": parsed(&outcome),
                "device_mebibytes": outcome.device_mebibytes,
                "seconds": outcome.seconds,
            }));
            note_failure(&mut found, &format!("batch {batch}"), &outcome);
        }
        found.insert("runs".into(), Value::Array(runs));
        found
    }

    /// A conversion by each method.
    pub fn convert(&self) -> Found {
        let mut found = Found::new();
        let config = models::llama_3_8b(self.layers);
        let model = match self.model("original", &config) {
            Ok(model) => model,
            Err(outcome) => {
                note_failure(&mut found, "model", &outcome);
                return found;
            }
        };
        let tokens = self.scratch.join("tokens.safetensors");
        let (rows, length) = CALIBRATION;
        let vocabulary = config["vocab_size"].as_u64().unwrap_or(1);
        if let Err(error) = models::write_tokens(&tokens, rows, length, vocabulary) {
            found.insert("failures".into(), json!({"tokens": error.to_string()}));
            return found;
        }
        let mut runs = Vec::new();
        for method in ["transmla", "coherent"] {
            let mut command = Command::new(&self.programs.transmla);
            command
                .args(["convert", "--method", method, "--model-path"])
                .arg(&model);
            command
                .arg("--save-path")
                .arg(self.scratch.join(method))
                .arg("--cal-tokens")
                .arg(&tokens);
            command.args([
                "--ppl-eval-batch-size",
                "0",
                "--max-memory",
                "64GiB",
                "--device",
                self.device,
            ]);
            command.args(["--json", "--quiet"]);
            if method == "transmla" {
                // What is tried out otherwise needs the evaluation.
                command.args(["--freqfold", "4"]);
            }
            let outcome = self.run(&mut command);
            runs.push(json!({
                "method": method,
                "result": parsed(&outcome),
                "device_mebibytes": outcome.device_mebibytes,
                "seconds": outcome.seconds,
            }));
            note_failure(&mut found, method, &outcome);
        }
        found.insert("runs".into(), Value::Array(runs));
        found
    }

    /// A folder with random weights; what went wrong otherwise.
    fn model(&self, name: &str, config: &Value) -> Result<PathBuf, Outcome> {
        let folder = self.scratch.join(name);
        let file = self.scratch.join(format!("{name}.json"));
        if let Err(error) = std::fs::write(&file, config.to_string()) {
            return Err(Outcome {
                failure: Some(error.to_string()),
                ..Outcome::default()
            });
        }
        let mut command = Command::new(&self.programs.gpu);
        command
            .arg("synth")
            .args([&file, &folder])
            .args(["bf16", "5000000000", "42"]);
        let outcome = self.run(&mut command);
        match outcome.failure {
            None => Ok(folder),
            Some(_) => Err(outcome),
        }
    }

    /// As long as there is time.
    fn run(&self, command: &mut Command) -> Outcome {
        let left = self.deadline.left();
        if left < Duration::from_secs(1) {
            return Outcome {
                failure: Some("left out for want of time".to_owned()),
                ..Outcome::default()
            };
        }
        run(command, left)
    }
}

/// All of a program's output is one JSON object.
fn parsed(outcome: &Outcome) -> Value {
    serde_json::from_str(&outcome.output).unwrap_or_default()
}

fn note_failure(found: &mut Found, what: &str, outcome: &Outcome) {
    if let Some(failure) = &outcome.failure {
        let failures = found.entry("failures").or_insert_with(|| json!({}));
        failures[what] = json!(failure);
    }
}

/// Latents of 512 + 64 with few and many heads, Llama 3 8B's grouped and Llama 2 7B's multi-head attention.
fn problems() -> Vec<String> {
    let mut problems = Vec::new();
    for (batch, tokens) in LATENT_SIZES {
        problems.push(format!("latent {batch} 32 {tokens} 576 512"));
    }
    for heads in [16, 128] {
        problems.push(format!("latent 128 {heads} 4096 576 512"));
    }
    for groups in [8, 32] {
        for (batch, tokens) in GROUPED_SIZES {
            problems.push(format!("grouped {batch} 32 {groups} {tokens} 128"));
        }
    }
    problems
}
