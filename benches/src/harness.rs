//! The main function of the criterion benchmarks.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use criterion::{BatchSize, Criterion, SamplingMode};

use crate::case::{Case, build};
use crate::catalogue::{Bench, Problem, catalogue};
use crate::memory;

/// Environment variable that, when set, adds the long contexts.
pub const LONG: &str = "TRANSMLA_BENCH_LONG";

/// Runs those problems of a benchmark that the command line selects.
///
/// # Panics
/// If a strategy's result is wrong: a wrong result has no speed.
pub fn main(bench: Bench) {
    let mut criterion = Criterion::default().configure_from_args();
    let problems = catalogue(std::env::var_os(LONG).is_some());
    for problem in problems.iter().filter(|problem| problem.bench == bench) {
        measure(&mut criterion, problem);
    }
    criterion.final_summary();
}

fn measure(criterion: &mut Criterion, problem: &Problem) {
    // Made when the first of its strategies is selected.
    let case: OnceCell<Box<dyn Case>> = OnceCell::new();
    let mut group = criterion.benchmark_group(&problem.name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for (index, strategy) in problem.strategies.iter().enumerate() {
        let measured = Cell::new(false);
        group.bench_function(&strategy.name, |bencher| {
            let case = case.get_or_init(|| checked(problem));
            if !measured.replace(true) {
                // Once before it is timed: the first run also makes what later ones find made.
                case.prepare(index)();
                let bytes = memory::of(case.prepare(index));
                memory::record(&problem.name, &strategy.name, bytes).expect("the file for memory can be written");
            }
            bencher.iter_batched(|| case.prepare(index), |timed| timed(), BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn checked(problem: &Problem) -> Box<dyn Case> {
    let case = build(problem);
    if let Err(difference) = case.check() {
        panic!("{} is computed wrongly: {difference}", problem.name);
    }
    case
}
