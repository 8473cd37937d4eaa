//! Results on disk, as the baseline of later runs.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::results::{Results, Row};
use crate::json::read_json;

/// What `--json` writes and `--baseline` reads.
#[derive(Debug, Serialize, Deserialize)]
pub struct Baseline {
    strategies: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    problem: String,
    strategy: String,
    median_ns: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gflops: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gigabytes_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tokens_per_second: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    share_of_roofline: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    over_grouped: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    predicted_over_grouped: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    peak_bytes: Option<u64>,
}

impl From<&Results> for Baseline {
    fn from(results: &Results) -> Self {
        let entry = |row: &Row| Entry {
            problem: row.problem.clone(),
            strategy: row.strategy.clone(),
            median_ns: row.median_ns,
            gflops: row.gflops,
            gigabytes_per_second: row.gigabytes,
            tokens_per_second: row.tokens,
            share_of_roofline: row.share,
            over_grouped: row.over_grouped,
            predicted_over_grouped: row.predicted,
            peak_bytes: row.memory,
        };
        Self {
            strategies: results.rows.iter().map(entry).collect(),
        }
    }
}

impl Baseline {
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        read_json(path)
    }

    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Speed-up of a row over the baseline; `None` if the baseline does not have it.
    pub fn speed_up(&self, row: &Row) -> Option<f64> {
        let same = |entry: &&Entry| entry.problem == row.problem && entry.strategy == row.strategy;
        let then = self.strategies.iter().find(same)?.median_ns;
        (then > 0.0).then(|| then / row.median_ns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(strategy: &str, median_ns: f64) -> Row {
        Row {
            problem: "p".into(),
            strategy: strategy.into(),
            median_ns,
            ..Row::default()
        }
    }

    #[test]
    fn a_later_run_is_compared_with_what_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before.json");
        let results = Results {
            rows: vec![row("a", 300.0)],
        };
        Baseline::from(&results).write(&path).unwrap();
        let baseline = Baseline::read(&path).unwrap();
        assert_eq!(baseline.speed_up(&row("a", 200.0)), Some(1.5));
        assert_eq!(baseline.speed_up(&row("b", 200.0)), None);
    }

    #[test]
    fn tokens_a_second_are_written_where_there_are_any_and_not_asked_of_older_files() {
        let evaluation = Row {
            tokens: Some(1234.5),
            ..row("perplexity", 1.0)
        };
        let results = Results {
            rows: vec![evaluation, row("eigen", 2.0)],
        };
        let written = serde_json::to_value(Baseline::from(&results)).unwrap();
        assert_eq!(written["strategies"][0]["tokens_per_second"], 1234.5);
        assert!(written["strategies"][1].get("tokens_per_second").is_none());
        let older = r#"{"strategies": [{"problem": "p", "strategy": "perplexity", "median_ns": 3.0}]}"#;
        let older: Baseline = serde_json::from_str(older).unwrap();
        assert_eq!(older.speed_up(&results.rows[0]), Some(3.0));
    }

    #[test]
    fn a_baseline_that_is_none_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("before.json");
        assert!(Baseline::read(&path).unwrap_err().to_string().contains("before.json"));
        fs::write(&path, "[1, 2]").unwrap();
        assert!(Baseline::read(&path).unwrap_err().to_string().contains("before.json"));
    }
}
