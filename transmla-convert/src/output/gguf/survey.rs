//! How large a saved model's residual stream gets, which says how large the epsilon of its file may be.

use std::path::Path;

use transmla_calib::TextTokenizer;
use transmla_core::model::attention::{Attention, QueryProjection};
use transmla_core::model::{Linear, RmsNorm};
use transmla_core::{CoreError, Decoder, DecoderLayer, LayeredModel, ModelConfig, TokenBatch, host_values};

use crate::layer::latent_norm::{latent_rows, mean_squares};
use crate::layer::stream::CalibrationStream;
use crate::output::verify::LEAST_KEPT;
use crate::spec::error::ConvertError;

/// What an export runs the model on, so that the same folder gives the same file everywhere.
const TEXT: [&str; 4] = [
    "Once upon a time there was a little girl who lived near a lake. Every morning she went down to the water to feed the ducks, \
     and every evening her grandmother told her a story about the people who had built the old stone bridge.\n\nOne day it began \
     to rain, and it did not stop for a week. \"The lake is rising,\" said the girl. \"We must bring the boats inside.\"",
    "The committee published its report on 14 March 1987. It found that 62 % of the railway stations in the region had been \
     closed since 1950, most of them on branch lines with fewer than 1,200 passengers a week. Three of the nine members, among \
     them the former minister of transport, disagreed with the conclusion and wrote an opinion of their own.",
    "def mean(values):\n    total = 0.0\n    for value in values:\n        total += value\n    return total / len(values)\n\n\n# \
     Prints 2.5.\nprint(mean([1, 2, 3, 4]))\nif __name__ == \"__main__\":\n    main(sys.argv[1:])\n",
    "Question: What is the largest planet of the solar system, and how long does it take to go around the sun?\nAnswer: Jupiter. \
     It takes about twelve years.\n\nQuestion: How do you say \"good morning\" in German, French and Spanish?\nAnswer: Guten \
     Morgen, bonjour, buenos días.",
];

/// Most tokens of a part of the text.
const MOST_TOKENS: usize = 128;

/// Bound on the residual stream after rescaling: a sixteenth of what half precision holds, for other text has larger numbers.
const LARGEST_RESIDUAL: f64 = 4096.0;

/// Most that the residual stream is multiplied by; with an epsilon of 1e-6 it then becomes 1.
const LARGEST_SCALE_EXPONENT: f64 = 10.0;

/// What a run over a text found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Survey {
    /// The power of two that the residual stream can be multiplied by.
    pub residual_scale: f64,
}

/// The text in a model's tokens, `[4, seq]`.
pub(super) fn built_in_text(folder: &Path, config: &ModelConfig) -> Result<TokenBatch, ConvertError> {
    let tokenizer = TextTokenizer::from_folder(folder)?;
    let parts = TEXT.iter().map(|text| tokenizer.encode(text, true));
    let parts: Vec<Vec<u32>> = parts.collect::<Result<_, _>>()?;
    let shortest = parts.iter().map(Vec::len).min().unwrap_or(0);
    let length = shortest.min(MOST_TOKENS).min(config.max_position_embeddings.max(1));
    let ids = parts
        .iter()
        .flat_map(|part| part[..length].iter().map(|id| i64::from(*id)));
    let text = TokenBatch::from_ids(ids.collect(), TEXT.len(), length).map_err(|problem| ConvertError::Gguf {
        problem: format!("its tokenizer makes nothing of text: {problem}"),
    })?;
    text.check_vocabulary(config.vocab_size)?;
    Ok(text)
}

/// Runs the text through a model.
///
/// # Errors
/// A layer cannot be read, or the residual stream is not finite.
pub(super) fn survey(model: &Decoder, text: &TokenBatch) -> Result<Survey, ConvertError> {
    let mut stream = CalibrationStream::new(model, text, 1, false)?;
    let mut largest = 0.0f64;
    let mut has_own_norms = false;
    for index in 0..=model.config().num_hidden_layers {
        for batch in 0..stream.batches() {
            let state = host_values(stream.state(batch).abs().max().reshape([1]))?;
            largest = state
                .into_iter()
                .fold(largest, |largest, value| match value.is_finite() {
                    true => largest.max(f64::from(value)),
                    false => f64::INFINITY,
                });
        }
        if !largest.is_finite() {
            return Err(ConvertError::Activations { layer: index });
        }
        if index < model.config().num_hidden_layers {
            let layer = model.layer(index)?;
            has_own_norms |= own_norms(&layer, &stream)?;
            stream.advance(&layer, &mut || ())?;
        }
    }
    let exponent = (LARGEST_RESIDUAL / largest.max(f64::MIN_POSITIVE)).log2().floor();
    let exponent = match has_own_norms {
        // What such a norm reads would grow with the epsilon, and need not.
        true => 0.0,
        false => exponent.clamp(0.0, LARGEST_SCALE_EXPONENT),
    };
    Ok(Survey {
        residual_scale: exponent.exp2(),
    })
}

fn own_norms(layer: &DecoderLayer, stream: &CalibrationStream) -> Result<bool, CoreError> {
    let Attention::Latent(attention) = &layer.attention else {
        return Ok(false);
    };
    let mut own = match &attention.kv_norm {
        Some(norm) => mean_share(&latent_rows(attention), norm, stream, layer)?.is_none(),
        None => false,
    };
    if let QueryProjection::Lora {
        down, norm: Some(norm), ..
    } = &attention.q
    {
        own |= mean_share(down, norm, stream, layer)?.is_none();
    }
    Ok(own)
}

/// The share of its latent that an identity norm leaves on average; nothing if the norm is none.
pub(super) fn mean_share(
    down: &Linear,
    norm: &RmsNorm,
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<Option<f64>, CoreError> {
    let squares = mean_squares(down, None, stream, layer)?;
    let share = |square: &f64| (1.0 + square / norm.eps).sqrt().recip();
    let mean = squares.iter().map(share).sum::<f64>() / squares.len().max(1) as f64;
    Ok((mean > LEAST_KEPT).then_some(mean))
}
