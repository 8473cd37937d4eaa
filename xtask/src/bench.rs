//! `cargo xtask bench`: check, time and compare.

mod baseline;
mod criterion;
mod device;
mod results;
mod table;
mod torch;

use std::path::PathBuf;
use std::time::SystemTime;

use anyhow::bail;
use benches::catalogue::catalogue;

use baseline::Baseline;
pub use device::Device;
use results::Results;

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
    /// Where to compute: cpu, cuda[:N] or wgpu[:N]; the benchmarks are built with the feature it needs
    #[arg(long, value_name = "DEVICE", default_value_t)]
    device: Device,

    /// Only strategies whose problem/strategy name matches this regular expression
    #[arg(long, value_name = "PATTERN")]
    filter: Option<String>,

    /// Write the results as JSON, to be a later run's --baseline
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Compare with the results that an earlier run wrote with --json
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,

    /// Few samples: a few minutes instead of many, with more noise
    #[arg(long)]
    quick: bool,

    /// Add contexts of 8192 tokens, an eigenproblem of 4096 and all layers of SmolLM2; 2 GiB of memory are needed
    #[arg(long)]
    long: bool,

    /// Python with torch, whose attention is timed on the same shapes (python3 if it has torch)
    #[arg(long, value_name = "PATH")]
    python: Option<PathBuf>,

    /// Only check that all strategies agree, time nothing
    #[arg(long, conflicts_with_all = ["json", "baseline", "quick", "python"])]
    check: bool,

    /// List the problems and strategies, run nothing
    #[arg(long, conflicts_with_all = ["filter", "json", "baseline", "quick", "python", "check"])]
    list: bool,
}

/// Runs the task.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut problems = catalogue(arguments.long);
    let on_cpu = arguments.device == Device::Cpu;
    problems.retain(|problem| on_cpu || problem.kind.on_gpu());
    if arguments.python.is_some() && !on_cpu {
        bail!("--python is for --device cpu: torch is timed on the CPU alone");
    }
    if arguments.list {
        for problem in &problems {
            for strategy in &problem.strategies {
                println!("{}/{}", problem.name, strategy.name);
            }
        }
        return Ok(());
    }
    // Read before anything is measured: a wrong file name should not cost minutes.
    let baseline = arguments.baseline.as_deref().map(Baseline::read).transpose()?;
    let start = SystemTime::now();
    let memory = tempfile::NamedTempFile::new()?;
    criterion::run(arguments, memory.path())?;
    if arguments.check {
        println!("All strategies agree with their references.");
        return Ok(());
    }
    let mut medians = criterion::medians(start)?;
    if on_cpu {
        let python = arguments.python.as_deref();
        torch::measure(python, arguments.quick, &mut problems, &mut medians)?;
    }
    let results = Results::new(&problems, &medians, &criterion::memory(memory.path())?);
    if let Some(filter) = &arguments.filter
        && results.only_yardsticks()
        && !filter.contains("matmul")
        && !filter.contains("copy")
    {
        bail!("--filter {filter} selects no strategy; --list names them");
    }
    print!("{}", table::render(&results, baseline.as_ref()));
    if let Some(path) = &arguments.json {
        Baseline::from(&results).write(path)?;
    }
    Ok(())
}
