//! Whether the headers of a checkpoint are those of a configuration.

use std::collections::BTreeSet;

use super::tensors::{carried_tensors, tensor_groups};
use crate::checkpoint::names::{EMBEDDING, HEAD};
use crate::checkpoint::reader::Checkpoint;
use crate::config::attention::AttentionConfig;
use crate::config::model::ModelConfig;
use crate::error::CheckpointError;

/// Checks a checkpoint's headers against a configuration, before any weight is read.
///
/// # Errors
/// A tensor is absent, has another shape or an unusable number format, or a layer has a tensor that the decoder would
/// ignore (a bias or norm of a variant it does not know).
pub fn check_headers(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    refuse_other_formats(checkpoint)?;
    refuse_missing_head(config, checkpoint)?;
    // The first layer that is not there ends this, however many a damaged configuration claims.
    let mut known = BTreeSet::new();
    for spec in tensor_groups(config)
        .flatten()
        .chain(std::iter::once_with(|| carried_tensors(config)).flatten())
    {
        if spec.name.ends_with(".bias")
            && !checkpoint.contains(&spec.name)
            && is_zero_everywhere(checkpoint, &spec.name)
        {
            continue;
        }
        checkpoint.check(&spec.name, &spec.shape)?;
        known.insert(spec.name);
    }
    let optional = |name: &str| match &config.attention {
        AttentionConfig::Latent(latent) => latent.biases && name.contains(".self_attn.") && name.ends_with(".bias"),
        AttentionConfig::Grouped(_) => false,
    };
    match checkpoint
        .names()
        .find(|name| !known.contains(*name) && !optional(name) && !is_unused(config, name))
    {
        None => Ok(()),
        Some(name) if name.ends_with(".sinks") => Err(CheckpointError::Unsupported {
            feature: "attention sinks",
            found: name.to_owned(),
            supported: "softmax over the tokens alone".into(),
        }),
        Some(name) => Err(CheckpointError::Unsupported {
            feature: "tensor",
            found: format!(
                "{name}, which a {} of this configuration does not have",
                config.model_type
            ),
            supported: "checkpoints whose every tensor the decoder uses".into(),
        }),
    }
}

/// Names of the tensors that are there and are no part of the model: what follows from the rest, and heads of other tasks.
pub fn unused_tensors<'a>(config: &'a ModelConfig, checkpoint: &'a Checkpoint) -> impl Iterator<Item = &'a str> {
    checkpoint.names().filter(|name| is_unused(config, name))
}

/// Whether a tensor may be there and changes nothing.
fn is_unused(config: &ModelConfig, name: &str) -> bool {
    // Tables and masks of older releases, which are computed now.
    const COMPUTED: [&str; 7] = [
        ".rotary_emb.inv_freq",
        ".rotary_emb.cos_cached",
        ".rotary_emb.sin_cached",
        ".self_attn.masked_bias",
        ".self_attn.bias",
        ".attention_mask",
        ".position_ids",
    ];
    let tied_head = name == HEAD && config.tie_word_embeddings;
    let mtp = config.mtp.is_none() && config.family.mtp_prefix.is_some_and(|prefix| name.starts_with(prefix));
    tied_head || mtp || is_other_head(name) || COMPUTED.iter().any(|end| name.ends_with(end))
}

/// Whether a tensor is a head of another task beside the language model's: values, rewards, classes.
fn is_other_head(name: &str) -> bool {
    let first = name.split('.').next().unwrap_or_default();
    match first {
        "lm_head" => false,
        "score" | "classifier" | "summary" => true,
        _ => first.ends_with("_head"),
    }
}

/// Whether no layer has the bias that this one lacks: transformers starts such biases at zero.
fn is_zero_everywhere(checkpoint: &Checkpoint, name: &str) -> bool {
    let within = name.strip_prefix("model.layers.").and_then(|rest| rest.split_once('.'));
    within.is_some_and(|(_, within)| {
        let end = format!(".{within}");
        let mut layers = checkpoint.names().filter(|name| name.starts_with("model.layers."));
        !layers.any(|name| name.ends_with(&end))
    })
}

/// Weights that are there in a form that nothing can be read from, said once and not tensor by tensor.
fn refuse_other_formats(checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    let refuse = |feature: &'static str, found: String, supported: &str| {
        Err(CheckpointError::Unsupported {
            feature,
            found,
            supported: supported.into(),
        })
    };
    let all = checkpoint.names().count();
    let is_empty = |name: &&str| checkpoint.shape(name).is_ok_and(|shape| shape.contains(&0));
    let empty = checkpoint.names().filter(is_empty).count();
    if empty > 1 && 2 * empty >= all {
        return refuse(
            "weights without elements",
            format!("{empty} of {all} tensors are empty, as DeepSpeed ZeRO-3 saves them without gathering"),
            "gathered weights: run the zero_to_fp32.py that lies beside the training checkpoint, or save again with \
             stage3_gather_16bit_weights_on_model_save",
        );
    }
    let first = |accept: &dyn Fn(&str) -> bool| checkpoint.names().find(|name| accept(name)).map(str::to_owned);
    if let Some(name) =
        first(&|name| name.contains(".lora_A") || name.contains(".lora_B") || name.contains(".base_layer."))
    {
        return refuse(
            "adapter",
            name,
            "models without adapters: merge it into its base model first (peft's merge_and_unload, then save_pretrained)",
        );
    }
    if let Some(name) = first(&|name| {
        [".qweight", ".qzeros", ".weight_packed", ".weight.absmax", ".SCB"]
            .iter()
            .any(|end| name.ends_with(end))
    }) {
        return refuse(
            "quantised weights",
            name,
            "unquantised fp32, fp16 or bf16 weights; take the model that this one was made from",
        );
    }
    if checkpoint.contains("tok_embeddings.weight") || checkpoint.contains("model.tok_embeddings.weight") {
        return refuse(
            "tensor names",
            "tok_embeddings.weight".into(),
            "those of transformers (model.embed_tokens.weight): take the model in Hugging Face format",
        );
    }
    if all > 0 && checkpoint.names().all(is_other_head) {
        return refuse(
            "a head alone",
            checkpoint.names().next().unwrap_or_default().to_owned(),
            "checkpoints of a whole language model: save the model that the head belongs to and convert that",
        );
    }
    if let Some(name) = first(&|name| {
        [
            "language_model.",
            "model.language_model.",
            "vision_tower.",
            "visual.",
            "model.visual.",
        ]
        .iter()
        .any(|start| name.starts_with(start))
    }) {
        return refuse(
            "tensors of a model for several kinds of input",
            name,
            "language models alone: save the language model by itself with transformers and convert that folder",
        );
    }
    Ok(())
}

/// A model whose head would be random numbers.
fn refuse_missing_head(config: &ModelConfig, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
    if config.tie_word_embeddings {
        return Ok(());
    }
    if checkpoint.embedding_from_head() {
        return Err(CheckpointError::MissingTensor {
            name: EMBEDDING.into(),
            folder: checkpoint.folder().to_path_buf(),
        });
    }
    if checkpoint.contains(HEAD) || !checkpoint.contains(EMBEDDING) {
        return Ok(());
    }
    let says = match config.raw.is_set("/tie_word_embeddings") {
        true => "is false",
        false => "is absent, which for this family means false",
    };
    let other = checkpoint.names().find(|name| is_other_head(name));
    let heads = other.map_or_else(String::new, |name| {
        format!(" (there is {name}, the head of another task)")
    });
    Err(CheckpointError::Config {
        key: "tie_word_embeddings".into(),
        problem: format!(
            "{says}, but tensor lm_head.weight is not in the checkpoint{heads}: transformers would start the output head at \
             random; if the model shares its embedding, write \"tie_word_embeddings\": true into config.json, else get the \
             tensor that is missing"
        ),
    })
}
