//! `cargo xtask interop`: converted models in stock transformers, compared with our own decoder.

mod llama;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::cargo::{root, transmla};

/// Run every converted form in stock transformers and compare logits and greedy text with ours.
///
/// Makes a Python environment outside the repository (torch, transformers, from PyPI) unless there is one, converts the
/// small models of the repository to every form, and loads each with AutoModelForCausalLM.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask interop
  cargo xtask interop --cases stories260k,gemma2
  cargo xtask interop --smollm2 SmolLM2-135M-Instruct --wikitext wikitext-2-raw-v1
  cargo xtask interop --llama ~/.cache/transmla-llama
  cargo xtask interop --record")]
pub struct Arguments {
    /// The Python environment [default: transmla-interop in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    venv: Option<PathBuf>,

    /// Only cases whose names have one of these in them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cases: Vec<String>,

    /// Folder of SmolLM2-135M-Instruct, converted and compared as well
    #[arg(long, value_name = "FOLDER", requires = "wikitext")]
    smollm2: Option<PathBuf>,

    /// Folder of wikitext-2, to calibrate SmolLM2 on
    #[arg(long, value_name = "FOLDER")]
    wikitext: Option<PathBuf>,

    /// Compare the trained models in stock form with llama.cpp as well, its npm package in this folder
    #[arg(long, value_name = "FOLDER")]
    llama: Option<PathBuf>,

    /// Keep what transformers gives as test data, in transmla-cli/tests/interop
    #[arg(long)]
    record: bool,
}

/// Largest difference of two logits in fp32.
const TOLERANCE: f64 = 1e-3;

/// What the trained models continue.
const PROMPT: &str = "Once upon a time";

const SCRIPT: &str = include_str!("interop/transformers.py");

/// A conversion to compare.
#[derive(Debug, Clone, Deserialize)]
struct Case {
    name: String,
    model: PathBuf,
    class: String,
    arguments: Vec<String>,
}

impl Case {
    /// Whether it writes text.
    fn is_trained(&self) -> bool {
        self.name.starts_with("stories") || self.name.starts_with("smollm2")
    }
}

/// What transformers made of it.
#[derive(Debug, Deserialize)]
struct Compared {
    name: String,
    class: String,
    remote_code: bool,
    difference: f64,
    largest: f64,
    greedy: bool,
    unused: Vec<String>,
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let python = environment(arguments.venv.as_deref())?;
    let binary = transmla()?;
    let cases = cases(arguments)?;
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut requests = Vec::with_capacity(cases.len());
    for case in &cases {
        let path = folder.path().join(&case.name);
        convert(&binary, case, &path)?;
        let trained = case.is_trained();
        let record = recordings().join(format!("{}.safetensors", case.name));
        requests.push(json!({
            "name": case.name,
            "path": path,
            "prompt": trained.then_some(PROMPT),
            "record": (arguments.record && !case.name.starts_with("smollm2")).then_some(record),
        }));
    }
    let script = folder.path().join("interop.py");
    std::fs::write(&script, SCRIPT).context("cannot write the script")?;
    let output = Command::new(&python)
        .arg(&script)
        .arg(&binary)
        .arg(Value::from(requests).to_string())
        // Modelling code of the models goes here, not into the user's cache.
        .env("HF_MODULES_CACHE", folder.path().join("modules"))
        .env("HF_HUB_OFFLINE", "1")
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("cannot start {}", python.display()))?;
    let said = String::from_utf8_lossy(&output.stdout);
    let mut failures = report(&said, &cases)?;
    ensure!(output.status.success(), "the comparison failed ({})", output.status);
    if let Some(packages) = &arguments.llama {
        let stock = cases
            .iter()
            .filter(|case| case.is_trained() && case.class == "DeepseekV3ForCausalLM");
        let models: Vec<_> = stock
            .map(|case| (case.name.clone(), folder.path().join(&case.name)))
            .collect();
        failures.extend(llama::compare(packages, &binary, &models, PROMPT)?);
    }
    ensure!(failures.is_empty(), "not as ours: {}", failures.join(", "));
    Ok(())
}

/// The Python of the environment, which is made if it is not there.
fn environment(given: Option<&Path>) -> anyhow::Result<PathBuf> {
    let folder = match given {
        Some(folder) => folder.to_path_buf(),
        None => cache_folder().context("there is no home folder; give --venv")?,
    };
    let python = folder.join("bin/python");
    if python.is_file() {
        return Ok(python);
    }
    eprintln!("Making {} (torch and transformers, from PyPI)", folder.display());
    let system = |command: &mut Command| -> anyhow::Result<()> {
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        ensure!(status.success(), "{command:?} failed ({status})");
        Ok(())
    };
    system(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
    let packages = ["torch", "transformers>=5", "safetensors", "numpy"];
    system(
        Command::new(&python)
            .args(["-m", "pip", "install", "--quiet"])
            .args(packages),
    )?;
    Ok(python)
}

fn cache_folder() -> Option<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))?;
    Some(cache.join("transmla-interop"))
}

fn recordings() -> PathBuf {
    root().join("transmla-cli/tests/interop")
}

/// The cases of the repository, and SmolLM2, that are asked for.
fn cases(arguments: &Arguments) -> anyhow::Result<Vec<Case>> {
    let path = recordings().join("cases.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut cases: Vec<Case> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    for case in &mut cases {
        case.model = root().join(&case.model);
    }
    if let (Some(model), Some(text)) = (&arguments.smollm2, &arguments.wikitext) {
        let shapes = "--qk-mqa-dim 32 --kv-lora-rank 128 --freqfold 4 --cal-nsamples 8 --cal-dataset";
        let mut words: Vec<String> = shapes.split(' ').map(str::to_owned).collect();
        words.push(text.display().to_string());
        cases.push(Case {
            name: "smollm2-135m".into(),
            model: model.clone(),
            class: "DeepseekV3ForCausalLM".into(),
            arguments: words,
        });
    }
    if !arguments.cases.is_empty() {
        cases.retain(|case| arguments.cases.iter().any(|part| case.name.contains(part)));
    }
    if cases.is_empty() {
        bail!("no case has {} in its name", arguments.cases.join(" or "));
    }
    Ok(cases)
}

fn convert(binary: &Path, case: &Case, target: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    command.arg("convert").arg("--model-path").arg(&case.model);
    command.arg("--save-path").arg(target);
    command.args([
        "--dtype",
        "fp32",
        "--ppl-eval-batch-size",
        "0",
        "--format",
        "json",
        "-q",
    ]);
    for word in &case.arguments {
        match word.ends_with(".safetensors") {
            true => command.arg(case.model.join(word)),
            false => command.arg(word),
        };
    }
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", case.name, said.trim_end());
    Ok(())
}

/// Prints the table; gives the names of the cases that are not as they should be.
fn report(lines: &str, cases: &[Case]) -> anyhow::Result<Vec<String>> {
    let mut failures: Vec<String> = Vec::new();
    let mut seen = 0;
    // Python libraries have their own things to say between our lines.
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if let Some(version) = value.get("transformers") {
            println!("transformers {version}, torch {}", value["torch"]);
            println!("| model | class | code beside weights | largest logit | difference | greedy text |");
            println!("| --- | --- | --- | --- | --- | --- |");
            continue;
        }
        let it: Compared = serde_json::from_value(value).with_context(|| format!("not a comparison: {line}"))?;
        let code = if it.remote_code { "yes" } else { "no" };
        let greedy = if it.greedy { "same" } else { "DIFFERS" };
        println!(
            "| {} | {} | {code} | {:.1} | {:.1e} | {greedy} |",
            it.name, it.class, it.largest, it.difference
        );
        let expected = cases.iter().find(|case| case.name == it.name);
        let class_fits = expected.is_some_and(|case| case.class == it.class);
        if !it.unused.is_empty() {
            println!("  {}: not loaded as they are: {}", it.name, it.unused.join(", "));
        }
        let sound = it.difference < TOLERANCE && it.greedy && class_fits && it.unused.is_empty();
        if !sound {
            failures.push(it.name);
        }
        seen += 1;
    }
    ensure!(seen == cases.len(), "{seen} of {} models were compared", cases.len());
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_fails() {
        let case = Case {
            name: "a".into(),
            model: "m".into(),
            class: "C".into(),
            arguments: Vec::new(),
        };
        let line = |difference: f64, class: &str| {
            json!({
                "name": "a", "class": class, "remote_code": false, "difference": difference, "largest": 9.0,
                "greedy": true, "unused": [],
            })
            .to_string()
        };
        let cases = [case];
        assert!(report(&line(1e-5, "C"), &cases).unwrap().is_empty());
        assert_eq!(report(&line(1e-2, "C"), &cases).unwrap(), ["a"]);
        assert_eq!(report(&line(1e-5, "D"), &cases).unwrap(), ["a"]);
        assert!(report("", &cases).is_err());
    }
}
