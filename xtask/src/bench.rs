//! `cargo xtask bench`: check, time and compare.

mod arguments;
mod baseline;
mod criterion;
mod device;
mod results;
mod table;
mod torch;

use std::time::SystemTime;

use anyhow::bail;
use benches::catalogue::catalogue;

pub use arguments::Arguments;
use baseline::Baseline;
pub use device::Device;
use results::Results;

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
