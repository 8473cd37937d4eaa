//! Converted models in vLLM, on a CPU.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use super::child::output;
use crate::cargo::root;
use crate::synth;

const SCRIPT: &str = include_str!("in_vllm.py");

/// A Llama with 1024 cached numbers per token. vLLM's kernels for CPUs take latents of 512 + 64 alone, so small models will not do.
const MODEL: &str = "xtask/src/interop/wide-llama.json";

/// Token ids of the model's vocabulary to calibrate on.
const TOKENS: &str = "transmla-convert/tests/tokens/stories260k-calibration.safetensors";

/// What `--target vllm` writes, by name and options.
const FORMS: &[(&str, &str)] = &[
    ("published", "--method transmla --freqfold 2"),
    (
        "published, low-rank queries",
        "--method transmla --freqfold 2 --q-lora-rank 192",
    ),
    ("coherent", "--refine 0"),
    ("coherent, refined", "--refine 4"),
];

/// Options of all of them.
const SHAPES: &str = "--target vllm --kv-lora-rank 512 --qk-mqa-dim 64 --dtype fp32 --cal-nsamples 16 --cal-max-seqlen 64 \
                      --ppl-eval-batch-size 0 --no-report --force -q";

#[derive(Debug, Deserialize)]
struct Compared {
    vllm: String,
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

/// Converts a wide random model to every form for vLLM and compares log-probabilities and greedy text with ours. Returns the names of
/// those that differ.
///
/// `python` is that of an environment with vLLM for CPUs. Files go into `folder`; differences below `tolerance` count as none.
pub fn compare(python: &Path, binary: &Path, folder: &Path, tolerance: f64) -> anyhow::Result<Vec<String>> {
    let source = folder.join("wide-llama");
    synth::write(&root().join(MODEL), &source, "fp32", 1 << 30, 42)?;
    let script = folder.join("in_vllm.py");
    std::fs::write(&script, SCRIPT).context("cannot write the script")?;
    let mut failures = Vec::new();
    for (index, (name, options)) in FORMS.iter().enumerate() {
        let model: PathBuf = folder.join(format!("wide-llama-{index}"));
        let mut convert = Command::new(binary);
        convert
            .arg("convert")
            .arg("--model-path")
            .arg(&source)
            .arg("--save-path")
            .arg(&model);
        convert.arg("--cal-tokens").arg(root().join(TOKENS));
        output(convert.args(SHAPES.split_whitespace()).args(options.split_whitespace()))?;
        let said = output(Command::new(python).arg(&script).arg(binary).arg(&model).arg(folder))?;
        // vLLM has things of its own to say.
        let line = said.lines().rev().find(|line| line.starts_with('{'));
        let line = line.with_context(|| format!("{name}: vLLM's script gave no result"))?;
        let found: Compared = serde_json::from_str(line).with_context(|| format!("not a comparison: {line}"))?;
        if index == 0 {
            println!("vLLM {} on a CPU, 512 + 64, fp32", found.vllm);
            println!("| form | tokens | log-probabilities | greedy text |\n| --- | --- | --- | --- |");
        }
        let same = if found.greedy < tolerance { "same" } else { "DIFFERS" };
        println!("| {name} | {} | {:.1e} | {same} |", found.tokens, found.log_probability);
        if !found.agrees(tolerance) {
            failures.push(format!("{name} in vLLM"));
        }
    }
    Ok(failures)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_differs_does_not_agree() {
        let compared = |tokens, log_probability, greedy| Compared {
            vllm: "0".into(),
            tokens,
            log_probability,
            greedy,
        };
        assert!(compared(9, 1e-5, 0.0).agrees(1e-3));
        assert!(!compared(0, 1e-5, 0.0).agrees(1e-3));
        assert!(!compared(9, 1e-2, 0.0).agrees(1e-3));
        assert!(!compared(9, 1e-5, 0.1).agrees(1e-3));
        assert!(!compared(9, f64::NAN, 0.0).agrees(1e-3));
    }
}
