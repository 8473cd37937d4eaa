//! What a sweep came to.

use std::path::Path;

use serde_json::{Value, json};
use transmla_convert::{Plan, Report};
use transmla_eval::Perplexity;
use transmla_eval::tasks::TaskRow;
use transmla_report::{Fact, Measured, SweepCurve, SweepPoint, SweepReport};

use super::arguments::{Curve, Files};
use crate::table::{self, Table};
use crate::task_figures;

/// A finished sweep.
pub struct Outcome<'a> {
    /// The model by its id or name.
    pub model: &'a str,
    /// What was evaluated on, without folders.
    pub text: &'a str,
    /// Tokens of a window.
    pub window: usize,
    /// KV numbers per token and layer of the original.
    pub original_cache: usize,
    /// Perplexity of the original.
    pub original: Option<Perplexity>,
    /// The converted models.
    pub points: Vec<Point<'a>>,
    /// Their curves, in the order they are shown.
    pub curves: &'a [Curve],
    /// Seconds from start to end.
    pub total_seconds: f64,
    /// The most memory in use.
    pub peak_bytes: Option<u64>,
    /// What else all models have in common.
    pub facts: Vec<Fact>,
    /// What their recipes have in common.
    pub recipe: String,
}

/// A converted model.
#[derive(Debug, Clone, Copy)]
pub struct Point<'a> {
    /// What it belongs to.
    pub curve: Curve,
    /// Width of the rotary key.
    pub rope_dim: usize,
    /// Width of the latent.
    pub rank: usize,
    /// KV numbers per token and layer.
    pub cache: usize,
    /// Perplexity.
    pub perplexity: f64,
    /// Perplexity after RoPE decoupling (published method).
    pub partial_rope: Option<f64>,
    /// Frequency folding (published method).
    pub freqfold: Option<usize>,
    /// Where it is, if it is kept.
    pub folder: Option<&'a Path>,
    /// Accuracy of the original on tasks, against that of this model.
    pub tasks: &'a [TaskRow],
}

impl<'a> Point<'a> {
    /// What a report says; nothing if the model was not measured.
    pub fn new(curve: Curve, plan: &Plan, report: &'a Report, folder: Option<&'a Path>) -> Option<Self> {
        Some(Self {
            curve,
            rope_dim: plan.latent().qk_rope_head_dim,
            rank: plan.latent().kv_lora_rank,
            cache: plan.cache_numbers().1,
            perplexity: report.mla?.perplexity,
            partial_rope: report.partial_rope.map(|measured| measured.perplexity),
            freqfold: report.freqfold,
            folder,
            tasks: &report.tasks,
        })
    }
}

impl Outcome<'_> {
    /// One line on the evaluation.
    pub fn evaluation(&self) -> String {
        let windows = self.original.map_or(0, |original| original.windows);
        let windows = table::plural(windows, "window");
        format!("{windows} of {} tokens of {}", self.window, self.text)
    }

    /// A cache as a share of the original, in percent.
    pub fn percent(&self, cache: usize) -> f64 {
        100.0 * cache as f64 / self.original_cache as f64
    }

    /// For the picture and the page.
    pub fn report(&self) -> SweepReport {
        let point = |point: &Point<'_>| SweepPoint {
            rope_dim: point.rope_dim,
            rank: point.rank,
            cache: point.cache,
            perplexity: point.perplexity,
            partial_rope: point.partial_rope,
            freqfold: point.freqfold,
            tasks: task_figures::for_page(point.tasks),
        };
        let curve = |curve: &Curve| SweepCurve {
            label: curve.label(),
            points: self
                .points
                .iter()
                .filter(|point| point.curve == *curve)
                .map(point)
                .collect(),
        };
        SweepReport {
            model: self.model.to_owned(),
            evaluation: self.evaluation(),
            original: Measured {
                cache: self.original_cache,
                perplexity: self.original.map(|measured| measured.perplexity),
            },
            curves: self.curves.iter().map(curve).collect(),
            total_seconds: Some(self.total_seconds),
            peak_bytes: self.peak_bytes,
            facts: self.facts.clone(),
            recipe: Some(self.recipe.clone()).filter(|recipe| !recipe.is_empty()),
            generator: concat!("transmla ", env!("CARGO_PKG_VERSION")).into(),
        }
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let point = |point: &Point<'_>| {
            json!({
                "method": point.curve.method,
                "refine": point.curve.refine,
                "qk_mqa_dim": point.rope_dim,
                "kv_lora_rank": point.rank,
                "kv_cache": point.cache,
                "kv_cache_share": point.cache as f64 / self.original_cache as f64,
                "perplexity": point.perplexity,
                "partial_rope_perplexity": point.partial_rope,
                "freqfold": point.freqfold,
                "save_path": point.folder,
                "tasks": point.tasks,
            })
        };
        json!({
            "model_path": self.model,
            "original": {
                "kv_cache": self.original_cache,
                "perplexity": self.original.map(|measured| measured.perplexity),
            },
            "evaluation": {
                "windows": self.original.map(|measured| measured.windows),
                "predictions": self.original.map(|measured| measured.predictions),
                "text": self.text,
            },
            "models": self.points.iter().map(point).collect::<Vec<_>>(),
            "total_seconds": self.total_seconds,
            "peak_memory_bytes": self.peak_bytes,
        })
    }

    /// For people.
    pub fn text(&self, files: &Files) -> String {
        let mut table = Table::new(format!("Swept {}: perplexity on {}", self.model, self.evaluation()));
        let labels: Vec<String> = self.curves.iter().map(|curve| curve.label()).collect();
        let row = |cache: &str, share: &str, cells: &mut dyn Iterator<Item = String>| {
            let mut line = format!("{cache:>10} {share:>9}");
            for (label, cell) in labels.iter().zip(cells) {
                let width = label.len().max(9);
                line += &format!("   {cell:>width$}");
            }
            line
        };
        table.row(
            "d_r + r",
            row("KV numbers", "share", &mut labels.iter().map(String::clone)),
        );
        if let Some(original) = self.original {
            let mut same = labels.iter().map(|_| format!("{:.4}", original.perplexity));
            table.row("original", row(&self.original_cache.to_string(), "100.0 %", &mut same));
        }
        let mut budgets: Vec<(usize, usize, usize)> = self
            .points
            .iter()
            .map(|point| (point.cache, point.rope_dim, point.rank))
            .collect();
        budgets.sort_unstable_by(|a, b| b.cmp(a));
        budgets.dedup();
        for (cache, rope_dim, rank) in budgets {
            let mut cells = self.curves.iter().map(|curve| {
                let point = self
                    .points
                    .iter()
                    .find(|point| point.curve == *curve && (point.rope_dim, point.rank) == (rope_dim, rank));
                point.map_or_else(String::new, |point| format!("{:.4}", point.perplexity))
            });
            let share = format!("{:.1} %", self.percent(cache));
            table.row(
                &format!("{rope_dim} + {rank}"),
                row(&cache.to_string(), &share, &mut cells),
            );
        }
        if let Some(foldings) = self.foldings() {
            table.row("freqfold", foldings);
        }
        for point in self.points.iter().filter(|point| !point.tasks.is_empty()) {
            table.row(
                "tasks",
                format!("{} at {} + {}", point.curve.label(), point.rope_dim, point.rank),
            );
            for line in task_figures::lines(point.tasks) {
                table.row("", line);
            }
        }
        table.row("time", table::seconds(self.total_seconds));
        if let Some(peak) = self.peak_bytes {
            table.row("peak memory", table::bytes(peak));
        }
        for (label, file) in [
            ("picture", &files.svg),
            ("figures", &files.figures),
            ("page", &files.report),
        ] {
            if let Some(file) = file {
                table.row(label, file.display().to_string());
            }
        }
        table.to_string()
    }

    /// The folding of each width of the rotary key.
    fn foldings(&self) -> Option<String> {
        let mut foldings: Vec<(usize, usize)> = self
            .points
            .iter()
            .filter_map(|point| Some((point.rope_dim, point.freqfold?)))
            .collect();
        foldings.sort_unstable_by(|a, b| b.cmp(a));
        foldings.dedup();
        let words: Vec<String> = foldings
            .iter()
            .map(|(rope_dim, fold)| format!("{fold} at d_r {rope_dim}"))
            .collect();
        (!words.is_empty()).then(|| words.join(", "))
    }
}
