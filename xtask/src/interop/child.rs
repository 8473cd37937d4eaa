//! Programs that are run for what they print.

use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

/// Standard output of a command; its standard error is ours.
///
/// # Errors
/// It cannot be started, or fails.
pub fn output(command: &mut Command) -> anyhow::Result<String> {
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?} failed ({})", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
