//! The whole conversion: two passes, the evaluations, and the files.

use std::path::Path;

use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::attention::{Attention, DecoupledQueries};
use transmla_core::model::is_attention_tensor;
use transmla_core::{CoreError, Decoder, LayeredModel, Residency, TokenBatch};
use transmla_eval::{EvalOptions, Perplexity, perplexity};

use crate::assemble;
use crate::compress::{factorise, factorise_queries};
use crate::decouple::{self, decouple};
use crate::latent_norm::latent_norms;
use crate::sequential::sequential;
use crate::weights::HostWeights;
use crate::{CalibrationStream, ConvertError, DecoupledModel, LayerReport, Method, Observer, Plan, Report, Stage};

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
    "NOTICE",
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
    let Request { plan, source, .. } = *request;
    request.calibration.check_vocabulary(plan.source.vocab_size)?;
    decouple::check_samples(plan, request.calibration)?;
    let (dtype, shard) = (plan.options.dtype, plan.options.max_shard_bytes);
    let mut writer = CheckpointWriter::create(request.target, &plan.tensors, dtype, shard, request.replace)?;
    let eval_options = request.evaluation.map_or_else(EvalOptions::default, |e| e.options);

    let mut report = Report {
        original: evaluate(request, source, Stage::EvaluateOriginal, observer)?,
        ..Report::default()
    };
    match plan.options.method {
        Method::Transmla => {
            let decoupled = decouple(plan, source, request.calibration, &eval_options, observer)?;
            let model = DecoupledModel::new(source, plan, &decoupled.rotations).with_keys(&decoupled.keys);
            report.partial_rope = evaluate(request, &model, Stage::EvaluateDecoupled, observer)?;
            report.layers = compress(request, &model, &mut writer, observer)?;
            report.freqfold = Some(decoupled.freqfold);
            report.freqfold_trials = decoupled.trials;
        }
        Method::Coherent => report.layers = sequential(request, &mut writer, observer)?,
    }
    write_rest(request, &mut writer)?;
    writer.finish()?;
    let converted = Decoder::open(writer.work_folder(), source.device(), Residency::Streamed)?;
    report.mla = evaluate(request, &converted, Stage::EvaluateConverted, observer)?;
    drop(converted);
    writer.commit()?;
    Ok(report)
}

fn evaluate(
    request: &Request<'_>,
    model: &dyn LayeredModel,
    stage: Stage,
    observer: &mut dyn Observer,
) -> Result<Option<Perplexity>, ConvertError> {
    let Some(evaluation) = &request.evaluation else {
        return Ok(None);
    };
    observer.begin(stage);
    let result = perplexity(model, evaluation.windows, &evaluation.options, &mut |done, total| {
        observer.advance(done, total);
    })?;
    observer.end(stage, Some(result.perplexity));
    Ok(Some(result))
}

/// The second pass: streams the decoupled model over the calibration text, factorises and writes each layer's attention.
fn compress(
    request: &Request<'_>,
    model: &DecoupledModel<'_>,
    writer: &mut CheckpointWriter,
    observer: &mut dyn Observer,
) -> Result<Vec<LayerReport>, ConvertError> {
    let plan = request.plan;
    let constant = plan.grouped.qkv_bias;
    observer.begin(Stage::Compress);
    let mut stream = CalibrationStream::new(model, request.calibration, plan.options.cal_batch_size, constant)?;
    let layers = plan.source.num_hidden_layers;
    let total = (layers * stream.batches()) as u64;
    let mut done = 0;
    let mut reports = Vec::with_capacity(layers);
    for index in 0..layers {
        let layer = model.layer(index)?;
        let moment = stream.moment(&layer)?;
        let weights = HostWeights::read(model.source(), plan, index, model.keys(index))?;
        let queries = factorise_queries(plan, index, weights.q.as_ref(), moment.matrix())?;
        let factors = factorise(
            plan,
            index,
            &weights,
            &queries,
            model.decoupling(index),
            moment.matrix(),
        )?;
        let Attention::Decoupled(decoupled) = &layer.attention else {
            return Err(ConvertError::AlreadyLatent {
                model_type: plan.source.model_type.clone(),
            });
        };
        let q_norm = match &decoupled.q {
            DecoupledQueries::Linear { .. } => None,
            DecoupledQueries::Normed { heads, .. } => Some(&heads.norm),
        };
        let attention = assemble::attention(plan, index, &factors, q_norm, decoupled.o.clone(), model.device())?;
        let norms = latent_norms(plan, &attention, &stream, &layer)?;
        for (name, values) in assemble::tensors(index, &attention, norms.as_ref(), plan.residual_scale())? {
            writer.write(&name, &values)?;
        }
        reports.push(LayerReport {
            layer: index,
            balance_ratio: factors.kv.ratio,
            kept_energy: factors.kv.kept_energy,
            key_error: model.keys(index).map(|keys| keys.error),
            output_error: None,
        });
        drop(factors);
        drop((queries, weights, moment));
        // Nothing is asked of the text behind the last layer.
        if index + 1 < layers {
            stream.advance(&layer, &mut || {
                done += 1;
                observer.advance(done, total);
            });
        }
    }
    observer.advance(total, total);
    observer.end(Stage::Compress, None);
    Ok(reports)
}

/// Everything but attention: copied, and rescaled where one epsilon must serve all norms.
fn write_rest(request: &Request<'_>, writer: &mut CheckpointWriter) -> Result<(), ConvertError> {
    let (plan, checkpoint) = (request.plan, request.source.checkpoint());
    let scale = plan.residual_scale();
    for tensor in &plan.tensors {
        let name = tensor.name.as_str();
        if is_attention_tensor(name) {
            continue;
        }
        let factor = match name {
            "model.embed_tokens.weight" => scale,
            // A tied head is the rescaled embedding; the final norm takes the factor back.
            "model.norm.weight" if plan.source.tie_word_embeddings => 1.0 / scale,
            _ if name.contains(".down_proj.") => scale,
            _ => 1.0,
        };
        writer.copy(checkpoint, name, factor as f32)?;
    }
    let folder = checkpoint.folder();
    for name in COMPANIONS {
        let path = folder.join(name);
        if path.is_file() {
            let contents = std::fs::read(&path).map_err(|e| CoreError::io("read", &path, e))?;
            writer.write_file(name, &contents)?;
        }
    }
    for (name, contents) in request.extra_files {
        writer.write_file(name, contents)?;
    }
    let mut config = serde_json::to_vec_pretty(&plan.target_json).unwrap_or_default();
    config.push(b'\n');
    writer.write_file("config.json", &config)?;
    Ok(())
}
