//! What is kept in memory, by how much of it may be used.

use transmla_core::model::{carried_tensors, model_tensors};
use transmla_core::{ModelConfig, Residency};
use transmla_eval::{EvalOptions, LOGITS_AT_ONCE, ScoringOptions};

use crate::setup::Setup;
use crate::solve::peak_bytes;
use crate::spec::plan::Plan;
use crate::text::plan::TextPlan;
use crate::text::written::writing_bytes;

/// Most bytes of hidden states kept at once, however much memory is allowed.
const MOST_STATE_BYTES: u64 = 256 << 20;

/// Memory of the program itself: code, thread stacks, a tokenizer and the text while it is cut into tokens. Measured with the embedded
/// model and little text.
const PROGRAM_BYTES: u64 = 80 << 20;

/// One in so many bytes more is held by the allocator between uses.
const HELD: u64 = 16;

/// Bytes of a number while it is computed with.
const FLOAT: u64 = size_of::<f32>() as u64;

/// Whether a model's weights are kept in memory: they are if they take at most half of `max_memory` bytes.
pub fn residency(config: &ModelConfig, max_memory: u64) -> Residency {
    match weight_bytes(config) <= max_memory / 2 {
        true => Residency::Loaded,
        false => Residency::Streamed,
    }
}

/// The same while the original writes calibration text, which a quarter of the setup's memory is for: its weights may take the
/// rest of what may be used then.
pub(crate) fn writing_residency(config: &ModelConfig, setup: &Setup) -> Residency {
    match weight_bytes(config) <= setup.writing_memory() - writing_share(setup.max_memory) {
        true => Residency::Loaded,
        false => Residency::Streamed,
    }
}

/// Bytes of a model's weights while it is computed with.
pub(crate) fn weight_bytes(config: &ModelConfig) -> u64 {
    let numbers: u64 = model_tensors(config).iter().map(|spec| spec.elements() as u64).sum();
    numbers * FLOAT
}

/// How an evaluation goes through a model: a quarter of `max_memory` bytes is for hidden states.
pub fn eval_options(batch_size: usize, max_memory: u64) -> EvalOptions {
    EvalOptions {
        batch_size,
        state_bytes: (max_memory / 4).min(MOST_STATE_BYTES),
        ..EvalOptions::default()
    }
}

/// Tokens of tasks that go through a layer together, for each window of a batch.
const TASK_TOKENS: usize = 256;

/// How questions go through a model: `batch_size` windows of 256 tokens at once, a quarter of `max_memory` bytes for hidden
/// states.
pub fn scoring_options(batch_size: usize, max_memory: u64) -> ScoringOptions {
    ScoringOptions {
        batch_tokens: TASK_TOKENS.saturating_mul(batch_size.max(1)),
        state_bytes: eval_options(batch_size, max_memory).state_bytes,
        ..ScoringOptions::default()
    }
}

/// Bytes that the original may use, beside its weights, while it writes calibration text.
pub(crate) fn writing_share(max_memory: u64) -> u64 {
    max_memory / 4
}

/// Numbers of a model, output head and multi-token-prediction layers included.
pub fn parameters(config: &ModelConfig) -> u64 {
    let (own, carried) = (model_tensors(config), carried_tensors(config));
    own.iter().chain(&carried).map(|spec| spec.elements() as u64).sum()
}

/// Estimated peak of a whole conversion in bytes.
pub(crate) fn conversion_bytes(plan: &Plan, texts: &TextPlan, residency: Residency, setup: &Setup) -> u64 {
    let source = plan.source();
    let kept = match residency {
        Residency::Loaded => FLOAT * parameters(source),
        Residency::Streamed => 0,
    };
    let evaluation = texts.window_tokens().map_or(0, |window| {
        let options = eval_options(plan.recipe().evaluation.ppl_eval_batch_size, setup.max_memory);
        let rows = options.batch_size.max(1).saturating_mul(window) as u64;
        let logits = (LOGITS_AT_ONCE as u64).min(rows.saturating_mul(source.vocab_size as u64));
        let states = rows
            .saturating_mul(FLOAT * source.hidden_size as u64)
            .min(options.state_bytes);
        // Of as many windows as go through a layer together.
        let of_text =
            (texts.windows().unwrap_or(1) as u64).saturating_mul(FLOAT * (window * source.hidden_size) as u64);
        FLOAT * (3 * logits + (source.vocab_size * source.hidden_size) as u64)
            + states.max(options.state_bytes.min(of_text))
    });
    let (samples, tokens) = texts.calibration_shape();
    let own = texts.own_spec();
    let written = own.map_or(0, |spec| {
        let weights = match (residency, writing_residency(source, setup)) {
            (Residency::Streamed, Residency::Loaded) => weight_bytes(source),
            _ => 0,
        };
        weights + writing_bytes(source, &spec, writing_share(setup.max_memory))
    });
    let worked = evaluation.max(peak_bytes(plan, samples, tokens)).max(written);
    PROGRAM_BYTES + kept + worked + worked / HELD
}
