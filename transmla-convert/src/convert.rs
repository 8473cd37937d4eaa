//! One conversion, and the files that every converted model has beside its attention.

use std::path::Path;

use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::is_attention_tensor;
use transmla_core::{CoreError, Decoder, TokenBatch};
use transmla_eval::EvalOptions;

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
    /// Whether an existing folder is replaced.
    pub replace: bool,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
}

/// Files of the source folder that go with the model.
const COMPANIONS: &[&str] = &[
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "LICENCE",
    "LICENSE.model",
    "COPYING",
    "NOTICE",
    "NOTICE.txt",
    "USE_POLICY.md",
];

/// Converts a model and writes it.
///
/// The target appears as the last step, complete; whatever fails before leaves it as it was. The perplexity of the
/// converted model is that of the written files, read back.
///
/// # Errors
/// Bad weights or text, a target that exists or cannot be written, a failing device.
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

/// Everything but attention: copied, and rescaled where one epsilon must serve all norms.
pub(crate) fn write_rest(request: &Request<'_>, writer: &mut CheckpointWriter) -> Result<(), ConvertError> {
    let (plan, checkpoint) = (request.plan, request.source.checkpoint());
    let scale = plan.residual_scale();
    let tied = (plan.source.tie_word_embeddings, plan.target.tie_word_embeddings);
    for tensor in &plan.tensors {
        let name = tensor.name.as_str();
        if is_attention_tensor(name) {
            continue;
        }
        let factor = match name {
            "model.embed_tokens.weight" => scale,
            // A tied head is the rescaled embedding; the final norm takes the factor back.
            "model.norm.weight" if tied.1 => 1.0 / scale,
            _ if name.contains(".down_proj.") => scale,
            _ if name.ends_with(".input_layernorm.weight") => plan.input_scale(),
            _ => 1.0,
        };
        let from = match name {
            // The stock form has no tied head.
            "lm_head.weight" if tied.0 => "model.embed_tokens.weight",
            _ => name,
        };
        writer.copy_as(checkpoint, from, name, factor as f32)?;
    }
    let folder = checkpoint.folder();
    for name in COMPANIONS {
        let path = folder.join(name);
        if path.is_file() {
            let contents = std::fs::read(&path).map_err(|e| CoreError::io("read", &path, e))?;
            writer.write_file(name, &companion(name, contents))?;
        }
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
