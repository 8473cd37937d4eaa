//! `cargo xtask synth`: random weights in the shape of a model.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, ensure};

use crate::cargo::cargo;

/// Write a model folder of random weights for a config.json.
///
/// For measurements of time and memory at real sizes, where what the model says does not matter. The weights are sharded as
/// on the hub and the same for the same seed.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:
  cargo xtask synth --config transmla-cli/tests/configs/llama-3.2-1b/config.json --output /tmp/llama-1b")]
pub struct Arguments {
    /// The config.json
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Folder to make
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,

    /// Number format of the weights: fp32, fp16 or bf16
    #[arg(long, value_name = "DTYPE", default_value = "bf16")]
    dtype: String,

    /// Largest file of weights, in bytes
    #[arg(long, value_name = "BYTES", default_value_t = 5_000_000_000)]
    shard_size: u64,

    /// Seed of the weights
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    seed: u64,
}

/// Runs the task.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    write(
        &arguments.config,
        &arguments.output,
        &arguments.dtype,
        arguments.shard_size,
        arguments.seed,
    )?;
    println!("{}", arguments.output.display());
    Ok(())
}

/// Writes a folder of random weights for a config.json.
///
/// # Errors
/// The generator cannot be built, or fails.
pub fn write(config: &Path, output: &Path, dtype: &str, shard_size: u64, seed: u64) -> anyhow::Result<()> {
    let mut cargo = cargo();
    // The whole workspace, for the features of its dependencies: burn is then not compiled again.
    cargo.args(["build", "--release", "--quiet", "--workspace", "--example", "synth"]);
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "building the generator failed ({status})");
    // Beside this program.
    let program = std::env::current_exe()?.with_file_name("examples").join("synth");
    let status = Command::new(&program)
        .args([config, output])
        .args([dtype, &shard_size.to_string(), &seed.to_string()])
        // It says where the folder is.
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("cannot start {}", program.display()))?;
    ensure!(status.success(), "the generator failed ({status})");
    Ok(())
}
