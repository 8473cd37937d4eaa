//! Running the criterion benchmarks and reading what they measured.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

use super::arguments::Arguments;
use crate::cargo::{cargo, root};
use crate::json::read_json;

/// Median nanoseconds by problem and strategy.
pub type Medians = BTreeMap<(String, String), f64>;

/// Peak bytes of a run beyond its inputs, by problem and strategy.
pub type Memory = BTreeMap<(String, String), u64>;

/// Builds and runs the benchmarks; their output goes to the terminal. They append to the file `memory`.
pub fn run(arguments: &Arguments, memory: &Path) -> anyhow::Result<()> {
    let mut cargo = cargo();
    cargo.env("TRANSMLA_BENCH_MEMORY", memory);
    cargo.env("CRITERION_HOME", home());
    // The command-line program is selected too, for cargo's sake: its dependencies then have the features that they have
    // in every other build, and burn is not compiled again.
    cargo.args(["bench", "--package", "transmla-benches", "--package", "transmla-cli"]);
    if let Some(feature) = arguments.device.feature() {
        cargo.args(["--features", feature]);
    }
    cargo.env("TRANSMLA_BENCH_DEVICE", arguments.device.to_string());
    for bench in ["matrices", "attention", "factorisation", "evaluation"] {
        cargo.args(["--bench", bench]);
    }
    cargo.args(["--", "--noplot"]);
    if arguments.quick {
        cargo.arg("--quick");
    }
    if arguments.check {
        cargo.arg("--test");
    }
    if arguments.long {
        cargo.env("TRANSMLA_BENCH_LONG", "1");
    }
    if let Some(filter) = &arguments.filter {
        // The copy and the products that the others are compared with are always measured.
        cargo.arg(format!("^copy/|^matmul/|{filter}"));
    }
    let status = cargo.status().context("cannot start cargo")?;
    ensure!(status.success(), "cargo bench failed ({status})");
    Ok(())
}

/// Reads the file to which the benchmarks appended their memory.
pub fn memory(file: &Path) -> anyhow::Result<Memory> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let line = |line: &str| {
        let mut cells = line.split('\t');
        let (problem, strategy) = (cells.next()?.to_owned(), cells.next()?.to_owned());
        Some(((problem, strategy), cells.next()?.parse().ok()?))
    };
    text.lines()
        .map(|text| line(text).with_context(|| format!("{}: '{text}' is not a measurement", file.display())))
        .collect()
}

/// Medians that criterion has written since a point in time.
pub fn medians(since: SystemTime) -> anyhow::Result<Medians> {
    medians_under(&home(), since)
}

fn medians_under(folder: &Path, since: SystemTime) -> anyhow::Result<Medians> {
    let mut medians = Medians::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if !path.is_dir() {
                continue;
            }
            if path.ends_with("new") {
                medians.extend(read_measurement(&path, since)?);
            } else {
                folders.push(path);
            }
        }
    }
    Ok(medians)
}

/// Reads the `new` folder of a strategy; `None` if it is of an earlier run.
fn read_measurement(folder: &Path, since: SystemTime) -> anyhow::Result<Option<((String, String), f64)>> {
    #[derive(Deserialize)]
    struct Benchmark {
        group_id: String,
        function_id: String,
    }
    #[derive(Deserialize)]
    struct Estimates {
        median: Estimate,
    }
    #[derive(Deserialize)]
    struct Estimate {
        point_estimate: f64,
    }
    let estimates = folder.join("estimates.json");
    let modified = fs::metadata(&estimates).and_then(|metadata| metadata.modified());
    match modified {
        Ok(time) if time >= since => {}
        _ => return Ok(None),
    }
    let benchmark: Benchmark = read_json(&folder.join("benchmark.json"))?;
    let estimates: Estimates = read_json(&estimates)?;
    let median = estimates.median.point_estimate;
    if !(median.is_finite() && median > 0.0) {
        bail!("{}: a median of {median} ns", folder.display());
    }
    Ok(Some(((benchmark.group_id, benchmark.function_id), median)))
}

fn home() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    target.join("criterion")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn put(folder: &Path, estimates: &str) {
        let folder = folder.join("decode_smollm2/grouped/new");
        fs::create_dir_all(&folder).unwrap();
        let benchmark = r#"{"group_id": "decode/smollm2", "function_id": "grouped", "throughput": null}"#;
        fs::write(folder.join("benchmark.json"), benchmark).unwrap();
        fs::write(folder.join("estimates.json"), estimates).unwrap();
    }

    #[test]
    fn reads_this_runs_medians_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        put(
            folder.path(),
            r#"{"mean": {"point_estimate": 2.0}, "median": {"point_estimate": 1500.5}}"#,
        );
        let found = medians_under(folder.path(), SystemTime::UNIX_EPOCH).unwrap();
        let expected = (("decode/smollm2".to_owned(), "grouped".to_owned()), 1500.5);
        assert_eq!(found.into_iter().collect::<Vec<_>>(), [expected]);
        let later = SystemTime::now() + Duration::from_secs(60);
        assert!(medians_under(folder.path(), later).unwrap().is_empty());
    }

    #[test]
    fn reads_what_memory_was_taken() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "attend/x-512\tfused\t4096\n").unwrap();
        let found = memory(file.path()).unwrap();
        assert_eq!(
            found,
            Memory::from([(("attend/x-512".to_owned(), "fused".to_owned()), 4096)])
        );
        fs::write(file.path(), "attend/x-512\tfused\tmuch\n").unwrap();
        assert!(memory(file.path()).unwrap_err().to_string().contains("much"));
    }

    #[test]
    fn damaged_measurements_are_errors_that_name_the_file() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{}", r#"{"median": {"point_estimate": 0.0}}"#] {
            put(folder.path(), text);
            let error = medians_under(folder.path(), SystemTime::UNIX_EPOCH).unwrap_err();
            assert!(error.to_string().contains("grouped"), "{error}");
        }
    }
}
