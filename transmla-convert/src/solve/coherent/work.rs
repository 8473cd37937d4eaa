//! The arithmetic of the coherent method.

use crate::solve::coherent::loss_gradients::{Division, division};
use crate::solve::coherent::refine::{CHECKS, MOMENT_BATCHES};
use crate::solve::coherent::sequential::{step_sequences, steps_of};
use crate::solve::work::{LayerShape, StageWork, TextSize, Work, head};
use crate::spec::plan::Plan;
use crate::spec::report::Stage;

/// Candidates for the slots that are compared in a layer.
const CANDIDATES: f64 = 4.0;

/// Numbers of a score matrix that sensitivities go through, once for each operation.
const SENSITIVITY: f64 = 14.0;

/// Elementwise operations of a step of Adam on a weight.
const ADAM: f64 = 14.0;

/// What a backward pass of attention's kernel takes, in forward passes.
const BACKWARD: f64 = 2.5;

/// Gradients, then layer by layer.
pub(super) fn work(plan: &Plan, text: &TextSize) -> Vec<StageWork> {
    let division = division(plan, text.samples, text.tokens);
    vec![
        StageWork {
            stage: Stage::Gradients,
            work: gradients(plan, &division),
        },
        StageWork {
            stage: Stage::Compress,
            work: compress(plan, &division),
        },
    ]
}

/// Once forwards, and backwards with every layer run again; no gradient of a weight is taken.
fn gradients(plan: &Plan, text: &Division) -> Work {
    let (source, layer) = (plan.source(), LayerShape::of(plan.source()));
    let (tokens, sequence) = (text.with_gradients as f64, text.sequence as f64);
    let linear = layer.forward(tokens, 0.0) * 3.0;
    let kernel = layer.kernel(tokens, sequence) * (2.0 + BACKWARD);
    (linear + kernel) * source.num_hidden_layers as f64 + head(source, tokens) * 2.0
}

fn compress(plan: &Plan, text: &Division) -> Work {
    let (source, converted) = (LayerShape::of(plan.source()), LayerShape::of(plan.converted()));
    let (all, sequence) = (text.tokens as f64, text.sequence as f64);
    let layers = plan.source().num_hidden_layers as f64;
    let hidden = source.hidden;
    let seen = source.attend(all, sequence) + Work::product(all, hidden, hidden);
    let passed = source.forward(all, sequence) + converted.forward(all, sequence);
    let latent = plan.latent();
    let norms = Work::product(all, hidden, latent.down_rows() as f64);
    let solved = closed_form(plan, text) + refinement(plan, text) + regression(plan, text);
    // Nothing goes through the last layer.
    (seen + norms + solved) * layers + passed * (layers - 1.0).max(0.0)
}

/// Sensitivities, and every candidate with its attention on the sequences that it is chosen by.
fn closed_form(plan: &Plan, text: &Division) -> Work {
    let (source, converted) = (LayerShape::of(plan.source()), LayerShape::of(plan.converted()));
    let (grouped, heads) = (plan.grouped(), plan.source().num_attention_heads as f64);
    let (hidden, keys) = (source.hidden, grouped.key_width() as f64);
    let (tokens, sequence) = (text.statistics as f64, text.sequence as f64);
    let width = grouped.head_dim as f64;
    // Scores, values and gradients of all pairs of tokens, and what they weigh keys by.
    let scores = Work::product(tokens, sequence, heads * 4.0 * width)
        + Work::elementwise(SENSITIVITY * tokens * sequence * heads)
        + Work::product(tokens, 1.0, source.attention);
    let host = Work::host_product(keys, hidden, hidden) + Work::host_product(2.0 * keys, hidden, hidden) * CANDIDATES;
    let candidate = Work::eigenvectors(2.0 * keys) + converted.attend(text.choice as f64, sequence);
    scores + host + candidate * CANDIDATES
}

/// Steps of some sequences, forwards and backwards with gradients of the weights, and looks at the held-out error.
fn refinement(plan: &Plan, text: &Division) -> Work {
    let steps = steps_of(plan.recipe()) as f64;
    if steps == 0.0 {
        return Work::default();
    }
    let converted = LayerShape::of(plan.converted());
    let (hidden, sequence) = (converted.hidden, text.sequence as f64);
    let attended = (plan.source().num_attention_heads * plan.latent().v_head_dim) as f64;
    let held_out = text.held_out as f64;
    let looks = steps.min(CHECKS as f64) + 1.0;
    let start = Work::eigenvectors(hidden)
        + Work::eigenvectors(attended)
        + Work::product(held_out, hidden, hidden)
        + converted.attend((MOMENT_BATCHES * text.batch).min(text.held_out) as f64, sequence);
    let tokens = sequence * step_sequences(plan.recipe()) as f64;
    let forward = converted.attend(tokens, 0.0);
    let step = Work::product(tokens, hidden, hidden)
        + forward * 3.0
        + converted.kernel(tokens, sequence) * (1.0 + BACKWARD)
        // The gradient of the output projection in its basis and the change back.
        + Work::product(hidden, attended, attended) * 2.0
        + Work::elementwise(ADAM * converted.attention);
    start + step * steps + converted.attend(held_out, sequence) * looks
}

/// Least squares for the output projection.
fn regression(plan: &Plan, text: &Division) -> Work {
    let converted = LayerShape::of(plan.converted());
    let (hidden, sequence) = (converted.hidden, text.sequence as f64);
    let attended = (plan.source().num_attention_heads * plan.latent().v_head_dim) as f64;
    let (training, held_out) = ((text.tokens - text.held_out).max(1) as f64, text.held_out as f64);
    converted.attend(training, sequence)
        + Work::product(training, attended, attended + hidden)
        + Work::host_product(attended, attended, attended / 6.0 + hidden)
        + converted.attend(held_out, sequence) * 2.0
}
