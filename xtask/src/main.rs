//! Repository tasks, run as `cargo xtask TASK`.

mod bench;
mod cargo;
mod fidelity;
mod gpu_report;
mod interop;
mod json;
mod synth;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Tasks of this repository.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    Bench(bench::Arguments),
    Fidelity(fidelity::Arguments),
    GpuReport(gpu_report::Arguments),
    Interop(interop::Arguments),
    Synth(synth::Arguments),
}

fn main() -> ExitCode {
    let result = match Cli::parse().task {
        Task::Bench(arguments) => bench::run(&arguments),
        Task::Fidelity(arguments) => fidelity::run(&arguments),
        Task::GpuReport(arguments) => gpu_report::run(&arguments),
        Task::Interop(arguments) => interop::run(&arguments),
        Task::Synth(arguments) => synth::run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
