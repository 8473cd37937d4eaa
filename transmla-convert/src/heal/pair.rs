//! Whether a converted model and an original belong together.

use transmla_core::{AttentionConfig, CoreError, Decoder, LayeredModel, ModelConfig};

use crate::spec::error::ConvertError;

/// Rows of the embeddings that are compared.
const COMPARED: usize = 64;

/// Least cosine of two rows that count as the same.
const LEAST_COSINE: f64 = 0.99;

/// Checks the configurations of a pair.
///
/// # Errors
/// [`ConvertError::NotLatent`] for a first model that is not converted, [`ConvertError::AlreadyLatent`] for an original that is,
/// [`ConvertError::Pair`] for two that do not fit each other.
pub(crate) fn check_configs(converted: &ModelConfig, original: &ModelConfig) -> Result<(), ConvertError> {
    if !matches!(converted.attention, AttentionConfig::Latent(_)) {
        return Err(ConvertError::NotLatent {
            model_type: converted.model_type.clone(),
        });
    }
    if matches!(original.attention, AttentionConfig::Latent(_)) {
        return Err(ConvertError::AlreadyLatent {
            model_type: original.model_type.clone(),
        });
    }
    for (what, converted, original) in [
        ("tokens in its vocabulary", converted.vocab_size, original.vocab_size),
        ("layers", converted.num_hidden_layers, original.num_hidden_layers),
        ("numbers in a hidden state", converted.hidden_size, original.hidden_size),
        (
            "query heads",
            converted.num_attention_heads,
            original.num_attention_heads,
        ),
    ] {
        if converted != original {
            return Err(ConvertError::Pair {
                problem: format!("it has {converted} {what}, the original {original}"),
            });
        }
    }
    Ok(())
}

/// Checks that embeddings are the same but for their scale, by some of their rows.
///
/// # Errors
/// [`ConvertError::Pair`]; rows that cannot be read.
pub(crate) fn check_embeddings(converted: &Decoder, original: &Decoder) -> Result<(), ConvertError> {
    let (vocabulary, width) = (original.config().vocab_size, original.config().hidden_size);
    let rows = |model: &Decoder| {
        let chosen = (0..COMPARED.min(vocabulary)).map(|index| index * vocabulary / COMPARED.min(vocabulary));
        let mut values = Vec::new();
        let name = "model.embed_tokens.weight";
        model
            .checkpoint()
            .rows(name, [vocabulary, width], chosen, &mut values)?;
        Ok::<_, CoreError>(values)
    };
    let (converted, original) = (rows(converted)?, rows(original)?);
    let pairs = converted.chunks_exact(width).zip(original.chunks_exact(width));
    let different = pairs.filter(|(a, b)| !are_alike(a, b)).count();
    match different * 10 > COMPARED.min(vocabulary) {
        true => Err(ConvertError::Pair {
            problem: "its embeddings are not those of the original".into(),
        }),
        false => Ok(()),
    }
}

fn are_alike(a: &[f32], b: &[f32]) -> bool {
    let dot = |a: &[f32], b: &[f32]| -> f64 { a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum() };
    let lengths = dot(a, a) * dot(b, b);
    // Tokens that were never trained.
    lengths == 0.0 || dot(a, b) >= LEAST_COSINE * lengths.sqrt()
}
