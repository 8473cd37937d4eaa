//! Perplexity of a model on a text given as token ids.

use std::path::PathBuf;

use transmla_eval::transmla_core::burn::tensor::Device;
use transmla_eval::transmla_core::{Decoder, Residency, TokenBatch};
use transmla_eval::{EvalError, EvalOptions, Silent, perplexity};

fn main() -> Result<(), EvalError> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or("transmla-cli/models/stories260k".into(), PathBuf::from);
    let model = Decoder::open(&folder, &Device::flex(), Residency::Streamed)?;
    // How the test split of the stories begins.
    let ids = vec![
        1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 268, 315, 418, 395, 410, 459,
    ];
    let windows = TokenBatch::from_ids(ids, 1, 16)?;
    let result = perplexity(&model, &windows, &EvalOptions::default(), &mut Silent)?;
    println!(
        "perplexity {:.3} ({:.3} nats per token) on {} predicted tokens",
        result.perplexity, result.mean_nll, result.predictions
    );
    Ok(())
}
