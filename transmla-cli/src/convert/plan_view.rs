//! A plan for people and programs.

use std::path::Path;

use serde_json::{Value, json};
use transmla_convert::{FileFormat, Plan, PlannedConversion, approximation, describe_method, parameters, refinement};
use transmla_core::TensorSpec;
use transmla_core::config::LatentStyle;

use super::estimate::Estimate;
use crate::model::declared_bytes;
use crate::table::{self, Table};
use crate::{flags, latents};

/// What is shown of a plan.
pub struct PlanView<'a> {
    /// The model as it was asked for.
    pub model: &'a str,
    /// Where the result goes.
    pub save_path: &'a Path,
    /// What is done.
    pub planned: &'a PlannedConversion,
    /// How long that takes.
    pub estimate: &'a Estimate,
}

impl PlanView<'_> {
    /// Size of the source's weights; without them, what they would take in the dtype of config.json.
    fn source_bytes(&self) -> u64 {
        let source = self.planned.plan().source();
        self.planned
            .source_bytes()
            .unwrap_or_else(|| parameters(source) * declared_bytes(source))
    }

    /// For people.
    pub fn table(&self) -> Table {
        let plan = self.planned.plan();
        let (source, latent, grouped) = (plan.source(), plan.latent(), plan.grouped());
        let mut table = Table::new(format!("Plan: {} -> {}", self.model, self.save_path.display()));
        table.row(
            "model",
            format!(
                "{}, {} layers, {} parameters",
                source.model_type,
                source.num_hidden_layers,
                table::count(parameters(plan.source()))
            ),
        );
        let (queries, heads, width) = (
            source.num_attention_heads,
            grouped.num_key_value_heads,
            grouped.head_dim,
        );
        table.row(
            "attention",
            format!("{queries} query heads, {heads} key/value heads of {width}"),
        );
        let query_rank = latent
            .q_lora_rank
            .map_or("full queries".to_owned(), |rank| format!("query latent {rank}"));
        let norms = if plan.recipe().use_qkv_norm {
            ", latent norms"
        } else {
            ""
        };
        table.row("becomes", format!("{}, {query_rank}{norms}", latents::describe(latent)));
        table.row("method", describe_method(plan));
        let (before, after) = plan.cache_numbers();
        let share = table::change(before, after);
        table.row(
            "KV cache",
            format!("{before} -> {after} numbers per token and layer ({share})"),
        );
        table.row("", table::token_bytes(plan.converted()));
        if let Some(devices) = latents::per_device(plan.converted()) {
            table.row("", devices);
        }
        table.row(
            "weights",
            format!(
                "{} tensors, {} in {}, {}",
                plan.tensors().len(),
                table::bytes(plan.output_bytes()),
                plan.recipe().dtype,
                style(plan)
            ),
        );
        if self.planned.source_bytes().is_none() {
            table.row("source", "config.json alone: nothing is known of its weights");
        }
        if let Some(obstacle) = plan.obstacle() {
            table.row("not stock", flags::spell(obstacle));
        }
        if let Some(why) = approximation(source, plan.key_norm()) {
            table.row("approximate", flags::spell(why));
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
        table.row("calibration", self.planned.texts().describe_calibration());
        table.row("evaluation", self.planned.texts().describe_evaluation());
        let tasks = &plan.recipe().tasks;
        if !tasks.is_empty() {
            table.row("tasks", tasks.describe());
        }
        table.row(
            "memory",
            format!("about {} at peak", table::bytes(self.planned.peak_bytes())),
        );
        table.row("time", self.estimate.describe());
        let (read, written) = (table::bytes(self.source_bytes()), table::bytes(plan.output_bytes()));
        table.row("disk", format!("{read} are read, {written} written"));
        let beside = table::bytes(self.planned.disk_needs().beside());
        table.row("", format!("at most {beside} beside the model until it stands"));
        table
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let plan = self.planned.plan();
        let (before, after) = plan.cache_numbers();
        let tensor = |spec: &TensorSpec| json!({"name": spec.name, "shape": spec.shape});
        json!({
            "dry_run": true,
            "model_path": self.model,
            "save_path": self.save_path,
            "method": plan.recipe().method,
            "refine": refinement(plan.recipe()),
            "shapes": shapes(plan),
            "kv_cache": {"original": before, "mla": after},
            "kv_cache_per_device": latents::numbers_by_devices(plan.converted()),
            "kv_cache_bytes": table::bytes_by_format(plan.converted()),
            "freqfold": plan.recipe().freqfold.to_string(),
            "freqfold_candidates": plan.freqfolds(),
            "dtype": plan.recipe().dtype.to_string(),
            "class": class(plan),
            "target": plan.recipe().engine,
            "format": plan.recipe().file_format(),
            "stock_obstacle": plan.obstacle().map(flags::spell),
            "parameters": parameters(plan.source()),
            "source_bytes": self.source_bytes(),
            "approximation": approximation(plan.source(), plan.key_norm()).map(flags::spell),
            "output_bytes": plan.output_bytes(),
            "peak_memory_estimate_bytes": self.planned.peak_bytes(),
            "disk_beside_bytes": self.planned.disk_needs().beside(),
            "time_estimate": self.estimate.json(),
            "calibration": self.planned.texts().describe_calibration(),
            "evaluation": self.planned.texts().describe_evaluation(),
            "tasks": (!plan.recipe().tasks.is_empty()).then(|| plan.recipe().tasks.describe()),
            "tensors": plan.tensors().iter().map(tensor).collect::<Vec<_>>(),
        })
    }
}

/// Shapes before and after, by the names in config.json.
pub fn shapes(plan: &Plan) -> Value {
    let (grouped, latent) = (plan.grouped(), plan.latent());
    json!({
        "num_hidden_layers": plan.source().num_hidden_layers,
        "num_attention_heads": plan.source().num_attention_heads,
        "num_key_value_heads": grouped.num_key_value_heads,
        "head_dim": grouped.head_dim,
        "q_lora_rank": latent.q_lora_rank,
        "latent_groups": latent.latent_groups,
        "tied_latent": latent.tied,
        "kv_lora_rank": latent.kv_lora_rank,
        "qk_nope_head_dim": latent.qk_nope_head_dim,
        "qk_rope_head_dim": latent.qk_rope_head_dim,
        "v_head_dim": latent.v_head_dim,
    })
}

/// Its name.
pub fn class(plan: &Plan) -> String {
    match plan.style() {
        LatentStyle::DeepseekV3 => "DeepseekV3ForCausalLM".into(),
        LatentStyle::Family => plan.source().family.latent_class(),
    }
}

/// The class that is written, for people.
pub fn style(plan: &Plan) -> String {
    let files = match plan.recipe().file_format() {
        FileFormat::Safetensors => "",
        FileFormat::Gguf => ", as GGUF",
    };
    match plan.style() {
        LatentStyle::DeepseekV3 if plan.latent().biases => {
            format!(
                "stock {} with biases (for transformers, mlx, mistralrs and vLLM's plugin)",
                class(plan)
            )
        }
        LatentStyle::DeepseekV3 => format!("stock {}{files}", class(plan)),
        LatentStyle::Family => format!("{} with its code", class(plan)),
    }
}

/// What of the source is not in the written model and not needed to run it.
pub fn left_out(plan: &Plan) -> Option<String> {
    let mtp = plan.source().mtp.filter(|_| plan.style() == LatentStyle::DeepseekV3)?;
    let layers = table::plural(mtp.layers, "multi-token-prediction layer");
    Some(format!("{layers}; --style family keeps them"))
}
