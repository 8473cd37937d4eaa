//! What a GPU makes of decoding: `gpu check DEVICE`, `gpu attend DEVICE PROBLEM…` and `gpu synth …`, which `cargo xtask gpu-report`
//! starts. Results are JSON, an object a line.
//!
//! One program for all of it: with a GPU backend inside, each is large.

mod attend;
mod check;

use std::path::Path;
use std::process::ExitCode;

use anyhow::anyhow;
use burn::tensor::Device;
use transmla_core::synthetic::write_random_model;
use transmla_core::{DeviceChoice, RawConfig, StorageDtype};

const USAGE: &str = "\
expected one of
  gpu check DEVICE
  gpu attend DEVICE PROBLEM…
      with PROBLEM either 'latent BATCH HEADS TOKENS WIDTH VALUE_WIDTH' or 'grouped BATCH HEADS GROUPS TOKENS WIDTH'
  gpu synth CONFIG OUTPUT DTYPE SHARD_BYTES SEED";

/// Runs the program; 1 if something failed or is computed wrongly.
pub fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["check", device] => open(device).and_then(|device| check::run(&device)),
        ["attend", device, ref problems @ ..] => open(device).and_then(|device| attend::run(&device, problems)),
        ["synth", config, output, dtype, shard, seed] => synth(config, output, dtype, shard, seed),
        _ => Err(anyhow!(USAGE)),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn open(device: &str) -> anyhow::Result<Device> {
    Ok(device.parse::<DeviceChoice>()?.open()?)
}

fn synth(config: &str, output: &str, dtype: &str, shard: &str, seed: &str) -> anyhow::Result<()> {
    let config = RawConfig::parse(&std::fs::read(config)?)?;
    let dtype: StorageDtype = dtype.parse()?;
    write_random_model(config, Path::new(output), dtype, shard.parse()?, seed.parse()?)?;
    Ok(())
}
