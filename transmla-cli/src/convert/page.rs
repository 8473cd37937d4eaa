//! `report.html` of a conversion: what was done and measured, as data for the page.

use std::fs;
use std::time::Instant;

use transmla_convert::{
    Engine, Finished, LayerFigures, LayerReport, Plan, RECIPE_FILE, Setup, TextPurpose, describe_method,
};
use transmla_report as page;
use transmla_report::{ConversionReport, Fact, Measured, Phase, RopeFigures, Sample};

use super::plan_view::style;
use super::stages::{ReadText, StageTime};
use crate::{latents, memory, table, task_figures};

/// The page's name in the folder of its model.
pub const PAGE: &str = "report.html";

/// What a page is made from beside the finished model.
#[derive(Debug)]
pub struct Origin<'a> {
    /// What written files may tell.
    pub setup: &'a Setup,
    /// When the conversion began.
    pub started: Instant,
}

impl Origin<'_> {
    /// The page of a finished model.
    ///
    /// # Errors
    /// A picture cannot be drawn.
    pub fn page(
        &self,
        finished: &Finished<'_>,
        figures: &[LayerFigures],
        stages: &[StageTime],
        texts: &[ReadText],
        samples: Vec<Sample>,
    ) -> anyhow::Result<String> {
        let Finished { plan, report, .. } = finished;
        let recipe = plan.recipe();
        let name = self.setup.name_of(&recipe.model_path);
        let (before, after) = plan.cache_numbers();
        let measured = |cache, perplexity: Option<transmla_eval::Perplexity>| Measured {
            cache,
            perplexity: perplexity.map(|it| it.perplexity),
        };
        let text = |purpose: TextPurpose, unit: &str| {
            let read = texts.iter().find(|text| text.purpose == purpose)?;
            Some(read.describe(unit, self.setup, recipe))
        };
        let phase = |stage: &StageTime| Phase {
            name: stage.label.clone(),
            seconds: stage.seconds,
            peak_bytes: stage.peak_bytes,
        };
        let report = ConversionReport {
            model: name.id.unwrap_or(name.name),
            method: describe_method(plan),
            facts: facts(plan, report.freqfold, text(TextPurpose::Calibration, "sample")),
            evaluation: text(TextPurpose::Evaluation, "window"),
            original: measured(before, report.original),
            converted: measured(after, report.mla),
            partial_rope: report.partial_rope.map(|it| it.perplexity),
            rank: plan.latent().kv_lora_rank,
            layers: report
                .layers
                .iter()
                .map(|layer| of_layer(plan, layer, figures))
                .collect(),
            phases: stages.iter().map(phase).collect(),
            total_seconds: Some(self.started.elapsed().as_secs_f64()),
            peak_bytes: memory::peak_bytes(),
            samples,
            tasks: task_figures::for_page(&report.tasks),
            recipe: fs::read_to_string(finished.folder.join(RECIPE_FILE)).ok(),
            generator: concat!("transmla ", env!("CARGO_PKG_VERSION")).into(),
        };
        Ok(report.html()?)
    }
}

fn facts(plan: &Plan, freqfold: Option<usize>, calibration: Option<String>) -> Vec<Fact> {
    let (source, grouped, latent) = (plan.source(), plan.grouped(), plan.latent());
    let heads = format!(
        "{} for queries, {} for keys and values, each {} wide",
        source.num_attention_heads, grouped.num_key_value_heads, grouped.head_dim
    );
    let facts = [
        ("Layers", Some(source.num_hidden_layers.to_string())),
        ("Heads", Some(heads)),
        ("Latents", latent.is_grouped().then(|| latents::describe(latent))),
        ("Latent", Some(latent.kv_lora_rank.to_string())),
        ("Rotary key", Some(latent.qk_rope_head_dim.to_string())),
        ("Query latent", latent.q_lora_rank.map(|rank| rank.to_string())),
        ("Freqfold", freqfold.map(|fold| fold.to_string())),
        ("Calibration", calibration),
        (
            "Weights",
            Some(format!(
                "{} in {}",
                table::bytes(plan.output_bytes()),
                plan.recipe().dtype
            )),
        ),
        ("Form", Some(style(plan))),
        (
            "Made for",
            plan.recipe().engine.map(|engine: Engine| engine.to_string()),
        ),
    ];
    let known = |(name, value): (&str, Option<String>)| {
        Some(Fact {
            name: name.to_owned(),
            value: value?,
        })
    };
    facts.into_iter().filter_map(known).collect()
}

fn of_layer(plan: &Plan, report: &LayerReport, figures: &[LayerFigures]) -> page::LayerFigures {
    let figures = figures.iter().find(|figures| figures.layer == report.layer);
    let rope = figures.map(|figures| RopeFigures {
        frequencies: plan.source().rope.of(report.layer).frequencies(),
        slots: plan.converted().rope.of(report.layer).frequencies(),
        shares: figures.slot_energy.clone(),
    });
    page::LayerFigures {
        layer: report.layer,
        kept_energy: Some(report.kept_energy),
        key_error: report.key_error,
        output_error: report.output_error,
        spectrum: figures.map(|figures| figures.spectrum.clone()).unwrap_or_default(),
        rope,
        refinement: figures.map(|figures| figures.refinement.clone()).unwrap_or_default(),
    }
}
