//! Everything of a converted model's folder but its attention.

use std::collections::HashSet;

use transmla_core::Decoder;
use transmla_core::checkpoint::{CheckpointWriter, Companions};
use transmla_core::model::is_attention_tensor;

use crate::layer::assemble::input_norm;
use crate::output::json::to_json;
use crate::output::modelling::{companion, modelling_files};
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// Writes what goes with the original's weights; done first, so that what changes on the way does not come along.
pub(crate) fn write_companions(source: &Decoder, writer: &CheckpointWriter) -> Result<(), ConvertError> {
    for file in Companions::of(source.checkpoint().folder())?.files {
        writer.write_file(&file.name, &companion(&file.name, file.contents()?)?)?;
    }
    Ok(())
}

/// Writes everything but attention and the norms in front of it: tensors copied, and rescaled where one epsilon must serve all
/// norms; config.json; `extra_files` by name and contents.
pub(crate) fn write_rest(
    plan: &Plan,
    source: &Decoder,
    extra_files: &[(String, Vec<u8>)],
    writer: &mut CheckpointWriter,
) -> Result<(), ConvertError> {
    let checkpoint = source.checkpoint();
    let factors = plan.tensor_factors();
    let tied = plan.source().tie_word_embeddings;
    // What was written with the attention.
    let norms: HashSet<String> = (0..plan.converted().num_hidden_layers).map(input_norm).collect();
    for tensor in plan.tensors() {
        let name = tensor.name.as_str();
        if is_attention_tensor(name) || norms.contains(name) {
            continue;
        }
        let factor = match name {
            "model.embed_tokens.weight" => factors.embedding,
            "model.norm.weight" => factors.final_norm,
            "lm_head.weight" => factors.head,
            _ if name.contains(".down_proj.") => factors.feed_forward_output,
            _ => 1.0,
        };
        let from = match name {
            // The stock form has no tied head.
            "lm_head.weight" if tied => "model.embed_tokens.weight",
            _ => name,
        };
        writer.copy_as(checkpoint, from, name, factor as f32)?;
    }
    for (name, contents) in modelling_files(plan) {
        writer.write_file(&name, contents.as_bytes())?;
    }
    for (name, contents) in extra_files {
        writer.write_file(name, contents)?;
    }
    let mut config = to_json("config.json", &plan.config_json())?;
    config.push(b'\n');
    writer.write_file("config.json", &config)?;
    Ok(())
}
