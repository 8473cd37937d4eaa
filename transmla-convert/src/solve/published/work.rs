//! The arithmetic of the published method.

use crate::solve::published::decouple::HOLDOUT;
use crate::solve::work::{LayerShape, StageWork, TextSize, Work, evaluation};
use crate::spec::plan::Plan;
use crate::spec::report::Stage;

/// Two passes, with the foldings that are tried and an evaluation in between.
pub(super) fn work(plan: &Plan, text: &TextSize) -> Vec<StageWork> {
    let layers = plan.source().num_hidden_layers as f64;
    let layer = LayerShape::of(plan.source());
    let (samples, sequence) = (text.samples, text.tokens as f64);
    let tokens = samples as f64 * sequence;
    let (hidden, keys) = (layer.hidden, plan.grouped().key_width() as f64);
    let folds = plan.freqfolds();
    let moments = Work::product(tokens, hidden, hidden);
    // Nothing goes through the last layer.
    let passed = layer.forward(tokens, sequence) * (layers - 1.0).max(0.0);
    let held_out = TextSize {
        windows: if folds.len() > 1 { samples.div_ceil(HOLDOUT) } else { 0 },
        window: text.tokens,
        ..*text
    };
    let tried = folds.iter().filter(|_| folds.len() > 1).map(|fold| StageWork {
        stage: Stage::TryFreqfold(*fold),
        work: evaluation(plan.source(), &held_out),
    });
    let evaluated = (text.windows > 0).then(|| StageWork {
        stage: Stage::EvaluateDecoupled,
        work: evaluation(plan.source(), text),
    });
    let rotated = Work::host_product(keys, hidden, hidden);
    let latent = plan.latent();
    let factorised = Work::host_product(3.0 * keys, hidden, hidden)
        + Work::eigenvectors(2.0 * keys)
        + Work::product(tokens, hidden, (latent.kv_lora_rank + latent.qk_rope_head_dim) as f64);
    let decouple = StageWork {
        stage: Stage::Decouple,
        work: (moments + rotated) * layers + passed,
    };
    let compress = StageWork {
        stage: Stage::Compress,
        work: (moments + factorised) * layers + passed,
    };
    std::iter::once(decouple)
        .chain(tried)
        .chain(evaluated)
        .chain([compress])
        .collect()
}
