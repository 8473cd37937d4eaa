//! Calls of cargo.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};
use serde_json::Value;

/// A command that runs cargo on this workspace.
pub fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(root());
    // `cargo run` tells xtask which package it is; a build script that looks at that would be run, and everything behind
    // it compiled, once for each side.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") {
            cargo.env_remove(name);
        }
    }
    cargo
}

/// The folder of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Builds the binary `transmla` and returns its path.
///
/// # Errors
/// If the build fails, or if cargo does not report the path of the binary.
pub fn transmla() -> anyhow::Result<PathBuf> {
    let [transmla] = programs(["transmla"], "")?;
    Ok(transmla)
}

/// Builds binaries of the workspace with features; gives their paths.
///
/// # Errors
/// The build fails, or cargo does not say where a binary is.
pub fn programs<const N: usize>(names: [&str; N], features: &str) -> anyhow::Result<[PathBuf; N]> {
    // The whole workspace, for the features of its dependencies: burn is then not compiled again.
    let output = cargo()
        .args(["build", "--release", "--workspace"])
        .args(names.iter().flat_map(|name| ["--bin", name]))
        .args(["--features", features, "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo build failed ({})", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let mut paths = [const { PathBuf::new() }; N];
    for (path, name) in paths.iter_mut().zip(names) {
        *path = executable(&messages, name).with_context(|| format!("cargo built no {name}"))?;
    }
    Ok(paths)
}

/// The path of a binary among cargo's messages.
fn executable(messages: &str, name: &str) -> Option<PathBuf> {
    let artifact = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        let of_binary = message["target"]["name"] == name && message["reason"] == "compiler-artifact";
        let path = message["executable"].as_str().filter(|_| of_binary)?;
        Some(PathBuf::from(path))
    };
    messages.lines().find_map(artifact)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_binary_among_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"burn"},"executable":null}
not JSON
{"reason":"compiler-artifact","target":{"name":"transmla"},"executable":"/target/release/transmla","fresh":true}
{"reason":"build-finished","success":true}"#;
        assert_eq!(
            executable(messages, "transmla"),
            Some(PathBuf::from("/target/release/transmla"))
        );
        assert_eq!(executable(messages, "gpu"), None);
        assert_eq!(executable("", "transmla"), None);
    }
}
