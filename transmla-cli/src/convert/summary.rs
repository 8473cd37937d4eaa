//! What a conversion came to.

use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value, json};
use transmla_convert::{Engine, FileFormat, LayerReport, Plan, Report, refinement};
use transmla_eval::Perplexity;
use transmla_eval::tasks::TaskRow;

use super::plan_view::{class, left_out, shapes, style};
use super::stages::StageTime;
use crate::table::{self, Table};
use crate::{flags, latents, task_figures};

/// A finished conversion.
pub struct Summary<'a> {
    /// The model as it was asked for.
    pub model: &'a str,
    /// Where the result is.
    pub save_path: &'a Path,
    /// What was done.
    pub plan: &'a Plan,
    /// What was measured.
    pub report: &'a Report,
    /// What was evaluated on.
    pub text: Option<&'a str>,
    /// What each stage took.
    pub stages: &'a [StageTime],
    /// Seconds from start to end.
    pub total_seconds: f64,
    /// Seconds of all processors together.
    pub cpu_seconds: Option<f64>,
    /// The most memory in use.
    pub peak_bytes: Option<u64>,
    /// Text of the converted model.
    pub sample: Option<String>,
    /// Whether it has a tokenizer.
    pub has_tokenizer: bool,
}

#[derive(Debug, Serialize)]
struct JsonSummary<'a> {
    save_path: &'a Path,
    model_path: &'a str,
    method: transmla_convert::MethodName,
    refine: usize,
    perplexity: Value,
    kv_cache: Value,
    freqfold: Option<usize>,
    freqfold_trials: Vec<Value>,
    shapes: Value,
    dtype: String,
    class: String,
    target: Option<Engine>,
    format: FileFormat,
    stock_obstacle: Option<String>,
    output_bytes: u64,
    evaluation: Value,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    tasks: &'a [TaskRow],
    timings: Map<String, Value>,
    cpu_seconds: Option<f64>,
    peak_memory_bytes: Option<u64>,
    peak_memory_bytes_after: Map<String, Value>,
    layers: Vec<Value>,
    warnings: Vec<String>,
}

impl Summary<'_> {
    /// For programs.
    pub fn json(&self) -> impl Serialize {
        let (plan, report) = (self.plan, self.report);
        let (before, after) = plan.cache_numbers();
        let value = |measured: &Option<Perplexity>| measured.map(|it| it.perplexity);
        let trial = |(fold, perplexity): &(usize, f64)| json!({"freqfold": fold, "perplexity": perplexity});
        let layer = |it: &LayerReport| {
            json!({
                "layer": it.layer,
                "balance_ratio": it.balance_ratio,
                "kept_energy": it.kept_energy,
                "key_error": it.key_error,
                "output_error": it.output_error,
                "stream_error": it.stream_error,
            })
        };
        let mut timings: Map<String, Value> = self
            .stages
            .iter()
            .map(|stage| (stage.name.clone(), json!(stage.seconds)))
            .collect();
        timings.insert("total".into(), json!(self.total_seconds));
        let peaks = self
            .stages
            .iter()
            .map(|stage| (stage.name.clone(), json!(stage.peak_bytes)));
        JsonSummary {
            save_path: self.save_path,
            model_path: self.model,
            method: plan.recipe().method,
            refine: refinement(plan.recipe()),
            perplexity: json!({
                "original": value(&report.original),
                "partial_rope": value(&report.partial_rope),
                "mla": value(&report.mla),
            }),
            kv_cache: json!({"original": before, "mla": after}),
            freqfold: report.freqfold,
            freqfold_trials: report.freqfold_trials.iter().map(trial).collect(),
            shapes: shapes(plan),
            dtype: plan.recipe().dtype.to_string(),
            class: class(plan),
            target: plan.recipe().engine,
            format: plan.recipe().file_format(),
            stock_obstacle: plan.obstacle().map(flags::spell),
            output_bytes: plan.output_bytes(),
            evaluation: report.mla.map_or(
                Value::Null,
                |it| json!({"windows": it.windows, "predictions": it.predictions, "text": self.text}),
            ),
            tasks: &report.tasks,
            timings,
            cpu_seconds: self.cpu_seconds,
            peak_memory_bytes: self.peak_bytes,
            peak_memory_bytes_after: peaks.collect(),
            layers: report.layers.iter().map(layer).collect(),
            warnings: self.warnings(),
        }
    }

    /// What is wrong with what came out.
    fn warnings(&self) -> Vec<String> {
        let (plan, report) = (self.plan, self.report);
        let guesses = |measured: &Option<Perplexity>| measured.is_some_and(|it| it.is_guess(plan.source().vocab_size));
        let (whose, broken) = match (guesses(&report.original), guesses(&report.mla)) {
            (true, _) => ("the original's", "it is broken, or the text is not for it"),
            (false, true) => ("the converted model's", "the conversion is broken; run transmla verify"),
            (false, false) => return Vec::new(),
        };
        vec![format!(
            "{whose} perplexity is no better than that of guessing among {} tokens: {broken}",
            plan.source().vocab_size
        )]
    }

    /// For people.
    pub fn text(&self) -> String {
        let (plan, report) = (self.plan, self.report);
        let mut table = Table::new(format!("Converted {}: {}", self.model, self.save_path.display()));
        let (grouped, latent) = (plan.grouped(), plan.latent());
        table.row(
            "attention",
            match latent.is_grouped() {
                false => format!(
                    "{} key/value heads of {} -> latent {} + rotary key {}",
                    grouped.num_key_value_heads, grouped.head_dim, latent.kv_lora_rank, latent.qk_rope_head_dim
                ),
                true => format!(
                    "{} key/value heads of {} -> {}",
                    grouped.num_key_value_heads,
                    grouped.head_dim,
                    latents::describe(latent)
                ),
            },
        );
        let (before, after) = plan.cache_numbers();
        let share = table::change(before, after);
        table.row(
            "KV cache",
            format!("{before} -> {after} numbers per token and layer ({share})"),
        );
        if let Some(freqfold) = self.freqfold() {
            table.row("freqfold", freqfold);
        }
        let errors: Vec<f64> = report.layers.iter().filter_map(|layer| layer.key_error).collect();
        if let Some(worst) = errors.iter().copied().reduce(f64::max) {
            let mean = errors.iter().sum::<f64>() / errors.len() as f64;
            table.row(
                "keys",
                format!(
                    "normalised by token, fitted with {:.1} % of their power lost on average, {:.1} % at worst",
                    100.0 * mean,
                    100.0 * worst
                ),
            );
        }
        let bytes = table::bytes(plan.output_bytes());
        table.row(
            "weights",
            format!("{bytes} in {}, {}", plan.recipe().dtype, style(plan)),
        );
        if let Some(obstacle) = plan.obstacle() {
            table.row("not stock", flags::spell(obstacle));
        }
        if let Some(left_out) = left_out(plan) {
            table.row("left out", left_out);
        }
        if let Some(engine) = plan.recipe().engine {
            table.row("made for", engine.to_string());
            for remark in engine.remarks(plan) {
                table.row("", flags::spell(&remark));
            }
        }
        let named = [
            ("original", &report.original),
            ("partial RoPE", &report.partial_rope),
            ("MLA", &report.mla),
        ];
        for (index, (name, measured)) in named.iter().enumerate() {
            let label = if index == 0 { "perplexity" } else { "" };
            match measured {
                Some(measured) => table.row(label, format!("{name:12} {:>10.4}", measured.perplexity)),
                None if report.mla.is_none() && index == 0 => table.row(label, "not measured"),
                // The coherent method has no step in between.
                None => &mut table,
            };
        }
        if let (Some(measured), Some(text)) = (&report.mla, self.text) {
            table.row("", format!("({} of {text})", table::plural(measured.windows, "window")));
        }
        for (index, line) in task_figures::lines(&report.tasks).into_iter().enumerate() {
            table.row(if index == 0 { "tasks" } else { "" }, line);
        }
        for warning in self.warnings() {
            table.row("WARNING", warning);
        }
        self.add_times(&mut table);
        if let Some(sample) = &self.sample {
            table.row("it writes", format!("\"{sample}\""));
        }
        table.command("try next", &self.next_command());
        table.to_string()
    }

    fn freqfold(&self) -> Option<String> {
        let chosen = self.report.freqfold?;
        let trials = self.report.freqfold_trials.iter();
        let trials: Vec<String> = trials
            .map(|(fold, perplexity)| format!("{fold}: {perplexity:.2}"))
            .collect();
        Some(match trials.is_empty() {
            true => chosen.to_string(),
            false => format!("{chosen} (held-out perplexity {})", trials.join(", ")),
        })
    }

    fn add_times(&self, table: &mut Table) {
        for (index, stage) in self.stages.iter().enumerate() {
            let label = if index == 0 { "time" } else { "" };
            table.row(
                label,
                format!("{:24} {:>10}", stage.label, table::seconds(stage.seconds)),
            );
        }
        let label = if self.stages.is_empty() { "time" } else { "" };
        table.row(
            label,
            format!("{:24} {:>10}", "All in all", table::seconds(self.total_seconds)),
        );
        if let Some(peak) = self.peak_bytes {
            table.row("peak memory", table::bytes(peak));
        }
    }

    fn next_command(&self) -> String {
        let model = quoted(&self.save_path.display().to_string());
        let engine = match self.plan.recipe().file_format() {
            FileFormat::Gguf => Some(Engine::LlamaCpp),
            FileFormat::Safetensors => self.plan.recipe().engine,
        };
        if let Some(engine) = engine.filter(|engine| *engine != Engine::Transformers) {
            return engine.command(self.plan, &model);
        }
        match self.has_tokenizer {
            true => format!("transmla generate --model-path {model} --prompt 'Once upon a time'"),
            false => format!("transmla inspect --model-path {model}"),
        }
    }
}

/// A word that a shell reads as one.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/+:@%".contains(c);
    match word.chars().all(plain) {
        true => word.to_owned(),
        false => format!("'{}'", word.replace('\'', r"'\''")),
    }
}
