//! The main function of the criterion benchmarks.

use std::cell::{Cell, OnceCell};
use std::time::Duration;

use burn::tensor::Device;
use criterion::{BatchSize, Criterion, SamplingMode};
use transmla_core::DeviceChoice;

use crate::case::{Case, Timed};
use crate::catalogue::{Bench, Problem, catalogue};
use crate::kinds::{build, has};
use crate::memory;

/// Environment variable that adds the long contexts if it is set.
pub const LONG: &str = "TRANSMLA_BENCH_LONG";

/// Environment variable that names the device, as `--device` does; the CPU if it is not set.
pub const DEVICE: &str = "TRANSMLA_BENCH_DEVICE";

/// Runs the problems of a benchmark that the command line selects.
///
/// # Panics
/// If the result of a strategy is wrong, or if the device cannot be opened.
pub fn main(bench: Bench) {
    let mut criterion = Criterion::default().configure_from_args();
    let problems = catalogue(std::env::var_os(LONG).is_some());
    let device = device();
    let on_host = device == Device::flex();
    let here = |problem: &&Problem| problem.bench == bench && (on_host || problem.kind.on_gpu());
    for problem in problems.iter().filter(here) {
        measure(&mut criterion, problem, &device);
    }
    criterion.final_summary();
}

fn device() -> Device {
    let choice = match std::env::var(DEVICE) {
        Ok(name) => name.parse(),
        Err(_) => Ok(DeviceChoice::Cpu),
    };
    match choice.and_then(DeviceChoice::open) {
        Ok(device) => device,
        Err(error) => panic!("{error}"),
    }
}

fn measure(criterion: &mut Criterion, problem: &Problem, device: &Device) {
    let on_host = *device == Device::flex();
    // Made when the first of its strategies is selected.
    let case: OnceCell<Box<dyn Case>> = OnceCell::new();
    let mut group = criterion.benchmark_group(&problem.name);
    group
        .sampling_mode(SamplingMode::Flat)
        .sample_size(10)
        .warm_up_time(Duration::from_secs(1))
        .measurement_time(Duration::from_secs(3));
    for (index, strategy) in problem.strategies.iter().enumerate() {
        if !has(problem, index, device) {
            continue;
        }
        let measured = Cell::new(false);
        group.bench_function(&strategy.name, |bencher| {
            let case = case.get_or_init(|| checked(problem, device));
            // Work is done when the device has done it, not when it is asked to.
            let finish = || device.sync().expect("the device does its work");
            if !measured.replace(true) {
                // Once before it is timed: the first run also makes what later ones find made.
                case.prepare(index)();
                finish();
                // What is allocated elsewhere is not counted.
                if on_host {
                    let bytes = memory::of(case.prepare(index));
                    memory::record(&problem.name, &strategy.name, bytes).expect("the file for memory can be written");
                }
            }
            let run = |timed: Timed<'_>| {
                timed();
                if !on_host {
                    finish();
                }
            };
            bencher.iter_batched(|| case.prepare(index), run, BatchSize::PerIteration);
        });
    }
    group.finish();
}

fn checked(problem: &Problem, device: &Device) -> Box<dyn Case> {
    let case = build(problem, device);
    if let Err(difference) = case.check() {
        panic!("{} is computed wrongly: {difference:#}", problem.name);
    }
    case
}
