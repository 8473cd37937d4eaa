//! Converted models in vLLM, on a CPU: stock ones, and families' classes by the plugin `python/transmla-vllm`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::child::output;
use crate::cargo::root;
use crate::json::read_json;
use crate::synth;

const SCRIPT: &str = include_str!("in_vllm.py");

/// Random models with 1024 cached numbers per token, and the forms that they are converted to: vLLM's kernel for CPUs takes latents of
/// 512 + 64 alone, so small models will not do.
const WIDE: &str = include_str!("wide.json");

const PLUGIN: &str = "python/transmla-vllm";

/// The class that vLLM has itself.
const STOCK: &str = "DeepseekV3ForCausalLM";

/// Token ids of the models' vocabulary to calibrate on.
const TOKENS: &str = "transmla-convert/tests/tokens/stories260k-calibration.safetensors";

/// Options of all forms.
const SHAPES: &str = "--kv-lora-rank 512 --qk-mqa-dim 64 --dtype fp32 --cal-nsamples 16 --cal-max-seqlen 64 \
                      --ppl-eval-batch-size 0 --no-report --force -q";

#[derive(Debug, Deserialize)]
struct Wide {
    base: Map<String, Value>,
    models: Vec<WideModel>,
}

#[derive(Debug, Deserialize)]
struct WideModel {
    name: String,
    /// Keys that differ from the base.
    config: Map<String, Value>,
    /// Options of a conversion, by name.
    forms: Map<String, Value>,
}

/// A converted model to run.
struct Model {
    name: String,
    path: PathBuf,
}

#[derive(Debug, Deserialize)]
struct Compared {
    vllm: String,
    path: PathBuf,
    class: String,
    tokens: usize,
    /// Largest difference of a log-probability from ours.
    log_probability: f64,
    /// How far the logit of a token that vLLM chose is at most below our largest.
    greedy: f64,
}

impl Compared {
    fn agrees(&self, tolerance: f64) -> bool {
        self.tokens > 0 && self.log_probability < tolerance && self.greedy < tolerance
    }
}

/// Converts wide random models of every family to every form for vLLM, and compares log-probabilities and greedy text with ours; of the
/// small `cases`, which are converted already, those that the plugin runs as well. Returns the names of those that differ.
///
/// `python` is that of an environment with vLLM for CPUs. Files go into `folder`, the plugin too; differences below `tolerance` count as
/// none.
pub fn compare(
    python: &Path,
    binary: &Path,
    folder: &Path,
    cases: &[(String, PathBuf)],
    tolerance: f64,
) -> anyhow::Result<Vec<String>> {
    let plugin = folder.join("plugin");
    install_plugin(python, &plugin)?;
    test_plugin(python, &plugin)?;
    let script = folder.join("in_vllm.py");
    std::fs::write(&script, SCRIPT).context("cannot write the script")?;
    let mut models = wide(binary, folder)?;
    for (name, path) in cases {
        if class(path)? != STOCK {
            models.push(Model {
                name: name.clone(),
                path: path.clone(),
            });
        }
    }
    let mut run = Command::new(python);
    run.arg(&script).arg(binary).arg(folder);
    let said = output(
        run.args(models.iter().map(|model| &model.path))
            .env("PYTHONPATH", &plugin),
    )?;
    report(&said, &models, tolerance)
}

/// Installs the plugin into a folder of its own, as pip does it into an environment.
fn install_plugin(python: &Path, target: &Path) -> anyhow::Result<()> {
    // Building leaves files beside the sources, so a copy is built.
    let copy = tempfile::tempdir().context("cannot create a temporary folder")?;
    let source = copy.path().join("transmla-vllm");
    output(Command::new("cp").args(["-rL"]).arg(root().join(PLUGIN)).arg(&source))?;
    let install = "-m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --target";
    output(Command::new(python).args(install.split(' ')).arg(target).arg(&source)).map(drop)
}

/// Runs the plugin's own tests.
fn test_plugin(python: &Path, plugin: &Path) -> anyhow::Result<()> {
    let mut tests = Command::new(python);
    tests.args(["-m", "unittest", "discover", "--start-directory"]);
    tests.arg(root().join(PLUGIN).join("tests"));
    output(tests.env("PYTHONPATH", plugin).env("PYTHONDONTWRITEBYTECODE", "1")).map(drop)
}

/// The wide models in all their forms.
fn wide(binary: &Path, folder: &Path) -> anyhow::Result<Vec<Model>> {
    let wide: Wide = serde_json::from_str(WIDE).context("wide.json")?;
    let mut models = Vec::new();
    for (index, model) in wide.models.iter().enumerate() {
        let mut config = wide.base.clone();
        config.extend(model.config.clone());
        let source = folder.join(format!("wide-{index}"));
        let file = folder.join(format!("wide-{index}.json"));
        std::fs::write(&file, Value::from(config).to_string()).context("cannot write a config.json")?;
        synth::write(&file, &source, "fp32", 1 << 30, 42)?;
        for (number, (form, options)) in model.forms.iter().enumerate() {
            let options = options.as_str().context("options are a text")?;
            let path = folder.join(format!("wide-{index}-{number}"));
            let mut convert = Command::new(binary);
            convert.arg("convert").arg("--model-path").arg(&source);
            convert.arg("--save-path").arg(&path);
            convert.arg("--cal-tokens").arg(root().join(TOKENS));
            if !options.contains("--target") {
                convert.args(["--target", "vllm"]);
            }
            output(convert.args(SHAPES.split_whitespace()).args(options.split_whitespace()))?;
            models.push(Model {
                name: format!("{}: {form}", model.name),
                path,
            });
        }
    }
    Ok(models)
}

/// The class that config.json names.
fn class(folder: &Path) -> anyhow::Result<String> {
    let path = folder.join("config.json");
    let config: Value = read_json(&path)?;
    let name = config.pointer("/architectures/0").and_then(Value::as_str);
    Ok(name
        .with_context(|| format!("{} has no architectures", path.display()))?
        .to_owned())
}

/// Prints the table; returns the names of the models that differ.
fn report(said: &str, models: &[Model], tolerance: f64) -> anyhow::Result<Vec<String>> {
    let mut failures = Vec::new();
    let mut seen = 0;
    // vLLM has things of its own to say.
    for line in said.lines().filter(|line| line.starts_with('{')) {
        let found: Compared = serde_json::from_str(line).with_context(|| format!("not a comparison: {line}"))?;
        let model = models.iter().find(|model| model.path == found.path);
        let name = &model.with_context(|| format!("not asked for: {line}"))?.name;
        if seen == 0 {
            println!("vLLM {} on a CPU, fp32", found.vllm);
            println!("| model | class | tokens | log-probabilities | greedy text |\n| --- | --- | --- | --- | --- |");
        }
        let same = if found.greedy < tolerance { "same" } else { "DIFFERS" };
        let (class, tokens) = (&found.class, found.tokens);
        println!(
            "| {name} | {class} | {tokens} | {:.1e} | {same} |",
            found.log_probability
        );
        if !found.agrees(tolerance) {
            failures.push(format!("{name} in vLLM"));
        }
        seen += 1;
    }
    ensure!(seen == models.len(), "vLLM ran {seen} of {} models", models.len());
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_does_not_agree() {
        let line = |tokens: usize, log_probability: &str, greedy: f64| {
            let path = "m";
            format!(
                "{{\"vllm\": \"0\", \"path\": \"{path}\", \"class\": \"C\", \"tokens\": {tokens}, \
                 \"log_probability\": {log_probability}, \"greedy\": {greedy}}}"
            )
        };
        let models = [Model {
            name: "a".into(),
            path: "m".into(),
        }];
        for (line, agrees) in [
            (line(9, "1e-5", 0.0), true),
            (line(0, "1e-5", 0.0), false),
            (line(9, "1e-2", 0.0), false),
            (line(9, "1e-5", 0.1), false),
        ] {
            let failures = report(&format!("INFO said\n{line}\n"), &models, 1e-3).unwrap();
            assert_eq!(failures.is_empty(), agrees, "{line}");
        }
        // A model that vLLM did not come to.
        assert!(report("INFO said\n", &models, 1e-3).is_err());
        let nan = Compared {
            vllm: "0".into(),
            path: "m".into(),
            class: "C".into(),
            tokens: 9,
            log_probability: f64::NAN,
            greedy: 0.0,
        };
        assert!(!nan.agrees(1e-3));
    }

    #[test]
    fn every_family_has_a_wide_model() {
        let wide: Wide = serde_json::from_str(WIDE).unwrap();
        let types: Vec<_> = wide
            .models
            .iter()
            .map(|model| model.config.get("model_type").and_then(Value::as_str))
            .collect();
        for family in [
            "mistral",
            "mixtral",
            "qwen2",
            "qwen3",
            "qwen3_moe",
            "olmo2",
            "phi3",
            "mimo",
            "gemma2",
            "gemma3_text",
        ] {
            assert!(types.contains(&Some(family)), "{family}");
        }
        assert!(types.contains(&None));
        assert!(
            wide.models
                .iter()
                .all(|model| model.forms.values().all(Value::is_string))
        );
        let base = |key: &str| wide.base[key].as_u64().unwrap();
        assert!(2 * base("num_key_value_heads") * base("head_dim") > 512 + 64);
    }
}
