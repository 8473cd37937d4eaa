//! The plan and the result of a healing, for people and programs.

use std::path::Path;

use serde_json::{Value, json};
use transmla_convert::{Distance, HealReport, PlannedHeal, parameters};
use transmla_core::burn::tensor::Device;
use transmla_core::{CoreError, Residency};

use super::arguments::HealArguments;
use crate::convert::estimate::{ACCURACY, Rates};
use crate::table::{self, Table};

/// What is shown of a plan.
pub struct HealView<'a> {
    arguments: &'a HealArguments,
    planned: &'a PlannedHeal,
    /// Of the training, of the original's logits and of all looks at the held-out text.
    seconds: f64,
}

impl<'a> HealView<'a> {
    /// Measures how fast the device is, in a tenth of a second.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(arguments: &'a HealArguments, planned: &'a PlannedHeal, device: &Device) -> Result<Self, CoreError> {
        let rates = Rates::measure(planned.config(), device)?;
        Ok(Self {
            arguments,
            planned,
            seconds: rates.seconds(&planned.work().total()),
        })
    }

    /// For people.
    pub fn table(&self) -> Table {
        let (planned, arguments) = (self.planned, self.arguments);
        let config = planned.config();
        let (model, save_path) = (&arguments.model.model_path, arguments.save_path.display());
        let mut table = Table::new(format!("Plan: {model} -> {save_path}"));
        table.row(
            "model",
            format!(
                "{}, {} layers, {} parameters",
                config.model_type,
                config.num_hidden_layers,
                table::count(parameters(config))
            ),
        );
        table.row("original", &arguments.against);
        table.row("training", planned.healing().describe());
        table.row(
            "teacher",
            match planned.healing().teacher_top_k {
                None => "the original, run at every step".to_owned(),
                Some(count) => format!("the {count} largest logits of the original, kept on disk first"),
            },
        );
        table.row("text", planned.text().describe_calibration());
        table.row(
            "memory",
            format!(
                "about {} at peak; both models' weights are {}",
                table::bytes(planned.peak_bytes()),
                match planned.residency() {
                    Residency::Loaded => "kept in memory",
                    Residency::Streamed => "read layer by layer",
                }
            ),
        );
        table.row(
            "time",
            format!("about {}, to within {ACCURACY} %", table::about(self.seconds)),
        );
        table.row(
            "disk",
            format!("{} are written", table::bytes(planned.converted_bytes())),
        );
        table
    }

    /// For programs.
    pub fn json(&self) -> Value {
        json!({
            "dry_run": true,
            "model_path": self.arguments.model.model_path,
            "against": self.arguments.against,
            "save_path": self.arguments.save_path,
            "healing": self.planned.healing(),
            "peak_memory_estimate_bytes": self.planned.peak_bytes(),
            "seconds_estimate": self.seconds,
            "output_bytes": self.planned.converted_bytes(),
        })
    }
}

/// What was done.
pub struct HealSummary<'a> {
    pub save_path: &'a Path,
    pub planned: &'a PlannedHeal,
    pub report: &'a HealReport,
    /// Tokens of the training in a second.
    pub pace: Option<f64>,
    pub total_seconds: f64,
    pub cpu_seconds: Option<f64>,
    pub peak_bytes: Option<u64>,
}

impl HealSummary<'_> {
    /// For people.
    pub fn text(&self) -> String {
        let report = self.report;
        let mut table = Table::new(format!("Healed: {}", self.save_path.display()));
        let distance = |distance: &Distance| {
            format!(
                "{:.4} nats a token from the original, perplexity {:.2}",
                distance.kl,
                distance.cross_entropy.exp()
            )
        };
        table.row("held out before", distance(&report.before()));
        table.row("held out after", distance(&report.written));
        let steps = self.planned.healing().steps;
        table.row("kept", format!("the model after step {} of {steps}", report.kept));
        table.row(
            "trained",
            format!(
                "{} numbers on {} tokens",
                table::count(report.trained),
                table::count(report.tokens)
            ),
        );
        let mut time = table::seconds(self.total_seconds);
        if let Some(pace) = self.pace {
            time += &format!(", {pace:.0} tokens/s");
        }
        table.row("time", time);
        if let Some(peak) = self.peak_bytes {
            table.row("peak memory", table::bytes(peak));
        }
        table.to_string()
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let distance = |distance: &Distance| json!({"kl": distance.kl, "cross_entropy": distance.cross_entropy});
        let report = self.report;
        let checks = report.checks.iter();
        let checks: Vec<Value> = checks
            .map(|check| json!({"step": check.done, "held_out": distance(&check.distance)}))
            .collect();
        json!({
            "save_path": self.save_path,
            "healing": self.planned.healing(),
            "held_out": {"before": distance(&report.before()), "after": distance(&report.written)},
            "kept_step": report.kept,
            "checks": checks,
            "tokens": report.tokens,
            "trained_numbers": report.trained,
            "tokens_per_second": self.pace,
            "seconds": self.total_seconds,
            "cpu_seconds": self.cpu_seconds,
            "peak_memory_bytes": self.peak_bytes,
        })
    }
}
