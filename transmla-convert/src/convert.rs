//! One conversion, and the files that every converted model has beside its attention.

use std::collections::HashSet;
use std::path::Path;

use transmla_core::checkpoint::{CheckpointWriter, Companions};
use transmla_core::model::is_attention_tensor;
use transmla_core::{Decoder, TokenBatch};
use transmla_eval::EvalOptions;

use crate::assemble::input_norm;
use crate::modelling::{companion, modelling_files};
use crate::{ConvertError, Observer, Plan, Report, Sweep, Target, sweep};

/// Text to evaluate on.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    /// Windows `[windows, seq]`.
    pub windows: &'a TokenBatch,
    /// Batch size and memory.
    pub options: EvalOptions,
}

/// Everything that a conversion needs.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The model to convert.
    pub source: &'a Decoder,
    /// Calibration text, `[samples, seq]`.
    pub calibration: &'a TokenBatch,
    /// Text that the three perplexities are measured on.
    pub evaluation: Option<Evaluation<'a>>,
    /// Folder to make.
    pub target: &'a Path,
    /// Whether an existing folder is replaced, if it holds nothing but what a conversion has written.
    pub replace: bool,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
}

/// Converts a model and writes it.
///
/// The target appears as the last step, complete; whatever fails before leaves it as it was (a mount point cannot be renamed,
/// and is filled file by file instead). The perplexity of the converted model is that of the written files, read back. Its
/// `transmla.toml` lists them.
///
/// # Errors
/// Bad weights or text, a target that exists, holds something else, has another conversion under way, lacks room or cannot be
/// written, a source that changes while it is read, a failing device.
pub fn convert(request: &Request<'_>, observer: &mut dyn Observer) -> Result<Report, ConvertError> {
    let target = Target {
        plan: request.plan,
        calibration: request.calibration,
        folder: request.target,
        replace: request.replace,
        keep: true,
        extra_files: request.extra_files,
    };
    let alone = Sweep {
        source: request.source,
        evaluation: request.evaluation,
        targets: &[target],
    };
    Ok(sweep(&alone, observer)?.swap_remove(0))
}

/// What goes with the original's weights; written first, so that what changes on the way does not come along.
pub(crate) fn write_companions(source: &Decoder, writer: &CheckpointWriter) -> Result<(), ConvertError> {
    for file in Companions::of(source.checkpoint().folder())?.files {
        writer.write_file(&file.name, &companion(&file.name, file.contents()?))?;
    }
    Ok(())
}

/// Everything but attention and the norms in front of it: copied, and rescaled where one epsilon must serve all norms.
pub(crate) fn write_rest(request: &Request<'_>, writer: &mut CheckpointWriter) -> Result<(), ConvertError> {
    let (plan, checkpoint) = (request.plan, request.source.checkpoint());
    let scale = plan.residual_scale();
    let tied = (plan.source.tie_word_embeddings, plan.target.tie_word_embeddings);
    // What was written with the attention.
    let norms: HashSet<String> = (0..plan.target.num_hidden_layers).map(input_norm).collect();
    for tensor in &plan.tensors {
        let name = tensor.name.as_str();
        if is_attention_tensor(name) || norms.contains(name) {
            continue;
        }
        let factor = match name {
            "model.embed_tokens.weight" => scale,
            // A tied head is the rescaled embedding; the final norm takes the factor back.
            "model.norm.weight" if tied.1 => 1.0 / scale,
            _ if name.contains(".down_proj.") => scale,
            _ => 1.0,
        };
        let from = match name {
            // The stock form has no tied head.
            "lm_head.weight" if tied.0 => "model.embed_tokens.weight",
            _ => name,
        };
        writer.copy_as(checkpoint, from, name, factor as f32)?;
    }
    for (name, contents) in modelling_files(plan) {
        writer.write_file(&name, contents.as_bytes())?;
    }
    for (name, contents) in request.extra_files {
        writer.write_file(name, contents)?;
    }
    let mut config = serde_json::to_vec_pretty(&plan.target_json).unwrap_or_default();
    config.push(b'\n');
    writer.write_file("config.json", &config)?;
    Ok(())
}
