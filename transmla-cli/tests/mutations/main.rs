//! Random damage to every file that a user may hand to the program: no panic, no abort, no hang, no absurd allocation.
//!
//! The inputs follow from their numbers alone. Five thousand run with the other tests; a hundred thousand with
//! `cargo test --release --workspace --test mutations -- --ignored`.

mod change;
mod measure;
mod targets;

use std::path::Path;
use std::time::Duration;

use change::{Random, changed};
use measure::{Watch, largest_allocation, reset_allocations};
use targets::{Target, targets};

/// Largest single allocation that any damaged input of some kilobytes may lead to.
const ALLOCATION: usize = 300 << 20;

/// Longest time for one input.
const TIME: Duration = Duration::from_secs(60);

/// Inputs beginning at a number; gives what went wrong.
fn run(first: u64, count: u64) -> Vec<String> {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| ()));
    let folder = tempfile::tempdir().unwrap();
    let targets = targets(folder.path());
    let watch = Watch::new(TIME);
    let mut failures = Vec::new();
    for number in first..first + count {
        let mut random = Random::of(number);
        let target: &Target = &targets[number as usize % targets.len()];
        let bytes = changed(&target.seed, target.is_json, &mut random);
        watch.begin(format!("input {number}, {}", target.name));
        reset_allocations();
        let path = folder.path().join(target.folder).join(target.file);
        std::fs::write(&path, &bytes).unwrap();
        let folder: &Path = path.parent().unwrap();
        let outcome = std::panic::catch_unwind(|| (target.read)(folder, &path));
        if outcome.is_err() {
            failures.push(format!("input {number}, {}: panic", target.name));
        }
        if largest_allocation() > ALLOCATION {
            let size = largest_allocation();
            failures.push(format!(
                "input {number}, {}: an allocation of {size} bytes",
                target.name
            ));
        }
        if !failures.is_empty() && failures.len() <= 3 {
            std::fs::write(std::env::temp_dir().join(format!("transmla-input-{number}")), &bytes).unwrap();
        }
        // The next target may read this file as a part of its own input.
        std::fs::write(&path, &target.seed).unwrap();
    }
    drop(watch);
    std::panic::set_hook(quiet);
    failures
}

#[test]
fn five_thousand_damaged_inputs() {
    let failures = run(0, 5_000);
    assert!(failures.is_empty(), "{failures:#?}");
}

#[test]
#[ignore = "takes minutes"]
fn a_hundred_thousand_damaged_inputs() {
    let failures = run(5_000, 100_000);
    assert!(failures.is_empty(), "{failures:#?}");
}
