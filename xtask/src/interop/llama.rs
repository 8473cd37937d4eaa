//! Converted models in llama.cpp, by way of GGUF and the npm package node-llama-cpp.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::child::output;

const SCRIPT: &str = include_str!("llama.mjs");

/// Tokens to continue a prompt with.
const TOKENS: &str = "40";

#[derive(Debug, Deserialize)]
struct Continued {
    file: PathBuf,
    text: String,
}

/// Exports models to GGUF and compares the greedy text of llama.cpp with that of our decoder. Returns the names
/// of the models whose texts differ.
///
/// The package is installed into `folder` unless it is there.
pub fn compare(
    folder: &Path,
    binary: &Path,
    models: &[(String, PathBuf)],
    prompt: &str,
) -> anyhow::Result<Vec<String>> {
    if !folder.join("node_modules/node-llama-cpp").is_dir() {
        eprintln!("Installing node-llama-cpp into {}", folder.display());
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
        output(Command::new("npm").arg("install").arg("--prefix").arg(folder).args([
            "--no-audit",
            "--no-fund",
            "--silent",
            "node-llama-cpp",
        ]))?;
    }
    // Node looks for packages from where the script is.
    let script = folder.join("interop.mjs");
    std::fs::write(&script, SCRIPT).with_context(|| format!("cannot write {}", script.display()))?;
    let mut command = Command::new("node");
    command.arg(&script).args([prompt, TOKENS]);
    let file = |path: &Path| path.join("model.gguf");
    for (_, path) in models {
        let mut export = Command::new(binary);
        export.args(["export", "-q", "--force", "--model-path"]).arg(path);
        output(export.arg("--output").arg(file(path)))?;
        command.arg(file(path));
    }
    let lines = output(&mut command)?;
    println!("| model | llama.cpp, greedy text |\n| --- | --- |");
    let mut failures = Vec::new();
    let mut seen = 0;
    for line in lines.lines().filter(|line| line.starts_with('{')) {
        let theirs: Continued = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let found = models.iter().find(|(_, path)| file(path) == theirs.file);
        let (name, path) = found.with_context(|| format!("not asked for: {line}"))?;
        let mut generate = Command::new(binary);
        generate.args(["generate", "-q", "--max-new-tokens", TOKENS, "--prompt", prompt]);
        let ours = output(generate.arg("--model-path").arg(path))?;
        let same = ours.trim() == theirs.text.trim();
        println!("| {name} | {} |", if same { "same" } else { "DIFFERS" });
        if !same {
            println!("  llama.cpp: {:?}\n  ours:      {:?}", theirs.text.trim(), ours.trim());
            failures.push(format!("{name} in llama.cpp"));
        }
        seen += 1;
    }
    ensure!(seen == models.len(), "llama.cpp ran {seen} of {} models", models.len());
    Ok(failures)
}
