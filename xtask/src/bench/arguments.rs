//! Arguments of `cargo xtask bench`.

use std::path::PathBuf;

use super::device::Device;

/// Time every strategy of the benchmark catalogue and print a table.
///
/// Each strategy's result is compared with the plain reference of its problem before it is timed; a wrong result ends
/// the run. Times are medians. A strategy's speed-up is over the first one of its problem, and, for decoding, over grouped
/// queries at equal context, beside what the rooflines of the two predict. A roofline is the longer of the operations at the
/// rate of a plain matrix product (burn's in f32, or faer's in f64 for the factorisations and the eigensolver) and of the
/// bytes that must be moved at the rate of a copy, both measured in the same run. Memory is the most that a run takes beside
/// its inputs. Tokens per second are those of an evaluation, beside a plain forward of the same text. Single queries are timed
/// with torch too, where Python has it, on as many threads.
///
/// On a GPU (`--device`) the problems are those of decoding, and copy and product are its own; each run ends when the device has
/// done its work. Memory and torch are the CPU's alone.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask bench --quick
  cargo xtask bench --filter '^moment/|^eigen/|^evaluate/'
  cargo xtask bench --filter decode/smollm2 --json before.json
  cargo xtask bench --filter decode/smollm2 --baseline before.json
  cargo xtask bench --device cuda --filter '^attend/'")]
pub struct Arguments {
    /// Where to compute: cpu, cuda, cuda:N, wgpu or wgpu:N; the benchmarks are built with the feature it needs
    #[arg(long, value_name = "DEVICE", default_value_t)]
    pub device: Device,

    /// Only strategies whose problem/strategy name matches this regular expression
    #[arg(long, value_name = "PATTERN")]
    pub filter: Option<String>,

    /// Write the results as JSON, to be a later run's --baseline
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Compare with the results that an earlier run wrote with --json
    #[arg(long, value_name = "FILE")]
    pub baseline: Option<PathBuf>,

    /// Few samples: a few minutes instead of many, with more noise
    #[arg(long)]
    pub quick: bool,

    /// Add contexts of 8192 tokens, an eigenproblem of 4096 and all layers of SmolLM2; 2 GiB of memory are needed
    #[arg(long)]
    pub long: bool,

    /// Python with torch, whose attention is timed on the same shapes (python3 if it has torch)
    #[arg(long, value_name = "PATH")]
    pub python: Option<PathBuf>,

    /// Only check that all strategies agree, time nothing
    #[arg(long, conflicts_with_all = ["json", "baseline", "quick", "python"])]
    pub check: bool,

    /// List the problems and strategies, run nothing
    #[arg(long, conflicts_with_all = ["filter", "json", "baseline", "quick", "python", "check"])]
    pub list: bool,
}
