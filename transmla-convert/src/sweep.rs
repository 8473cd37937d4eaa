//! Several conversions of one model: what does not depend on the target is done once.

use std::path::Path;

use transmla_core::checkpoint::{CheckpointWriter, Claim};
use transmla_core::{Decoder, LayeredModel, Residency, TokenBatch};
use transmla_eval::{EvalOptions, Perplexity, perplexity};

use crate::convert::{write_companions, write_rest};
use crate::decouple::{check_samples, decouple};
use crate::gguf::{check_gguf, write_gguf};
use crate::kept_layers::forget;
use crate::loss_gradients::LossGradients;
use crate::manifest::{check_replaceable, check_space, list_files};
use crate::report::EvaluationSteps;
use crate::second_pass::{Output, second_pass};
use crate::sequential::sequential;
use crate::{
    ConvertError, DecoupledModel, Evaluation, FileFormat, GGUF_FILE, Method, Observer, Plan, Report, Request, Stage,
};

/// Conversions of one model.
#[derive(Debug, Clone, Copy)]
pub struct Sweep<'a> {
    /// The model to convert.
    pub source: &'a Decoder,
    /// Text that perplexities are measured on.
    pub evaluation: Option<Evaluation<'a>>,
    /// The models to make.
    pub targets: &'a [Target<'a>],
}

/// One of the models that a sweep makes.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// What to do; planned for the sweep's source.
    pub plan: &'a Plan,
    /// Calibration text, `[samples, seq]`. What follows from a text is shared by the targets that have the same.
    pub calibration: &'a TokenBatch,
    /// Folder to make.
    pub folder: &'a Path,
    /// Whether an existing folder is replaced, if it holds nothing but what a conversion has written.
    pub replace: bool,
    /// Whether the folder is wanted. One that is not never appears: its files are written beside it, read back, measured
    /// and removed.
    pub keep: bool,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
}

/// Makes every target; the reports are in the order of the targets.
///
/// The original is measured once. Targets of the published method that differ in ranks, norms or form alone share one
/// decoupling, one perplexity after it and one second pass; those of the coherent method share the gradients of the
/// loss. Each target is the same, to the bit, as one that [`convert()`](crate::convert()) makes alone.
///
/// # Errors
/// As for [`convert()`](crate::convert()). Targets that were complete before the error stay, if they were to be kept.
pub fn sweep(sweep: &Sweep<'_>, observer: &mut dyn Observer) -> Result<Vec<Report>, ConvertError> {
    let Sweep { source, targets, .. } = *sweep;
    // Released last: nobody else comes to these targets before everything is in its place or gone.
    let _claims: Vec<Claim> = targets
        .iter()
        .map(|target| Claim::of(target.folder))
        .collect::<Result<_, _>>()?;
    check_space(targets.iter().map(|target| (target.folder, target.plan)))?;
    let mut writers = Vec::with_capacity(targets.len());
    for target in targets {
        if target.replace {
            check_replaceable(target.folder)?;
        }
        target.calibration.check_vocabulary(source.config().vocab_size)?;
        check_samples(target.plan, target.calibration)?;
        check_gguf(target.plan, source.checkpoint().folder())?;
        let options = &target.plan.options;
        let writer = CheckpointWriter::create(
            target.folder,
            &target.plan.tensors,
            options.dtype,
            options.max_shard_bytes,
            target.replace,
        )?;
        write_companions(source, &writer)?;
        writers.push(Some(writer));
    }
    let original = sweep.evaluate(source, Stage::EvaluateOriginal, observer)?;
    let mut reports = vec![Report::default(); targets.len()];
    let mut gradients = None;
    for group in groups(targets) {
        observer.converting(&group);
        let mut taken: Vec<CheckpointWriter> = group.iter().filter_map(|index| writers[*index].take()).collect();
        let found = sweep.attentions(&group, &mut taken, &mut gradients, observer)?;
        for ((index, mut writer), report) in group.into_iter().zip(taken).zip(found) {
            let target = &targets[index];
            write_rest(&sweep.request(target), &mut writer)?;
            writer.finish()?;
            let converted = Decoder::open(writer.work_folder(), source.device(), Residency::Streamed)?;
            let mla = sweep.evaluate(&converted, Stage::EvaluateConverted, observer)?;
            drop(converted);
            if target.plan.options.format == FileFormat::Gguf {
                let file = writer.work_folder().join(GGUF_FILE);
                write_gguf(
                    writer.work_folder(),
                    &file,
                    true,
                    target.plan.options.pre_tokenizer.as_deref(),
                    source.device(),
                )?;
                writer.drop_weights()?;
            }
            if target.keep {
                list_files(&writer)?;
                if target.replace {
                    // Much may have come there in the meantime.
                    check_replaceable(target.folder)?;
                }
                writer.commit()?;
            }
            forget(target.folder)?;
            reports[index] = Report {
                original,
                mla,
                ..report
            };
            observer.converted(index, &reports[index]);
        }
    }
    Ok(reports)
}

impl Sweep<'_> {
    fn request<'a>(&'a self, target: &Target<'a>) -> Request<'a> {
        Request {
            plan: target.plan,
            source: self.source,
            calibration: target.calibration,
            evaluation: self.evaluation,
            target: target.folder,
            replace: target.replace,
            extra_files: target.extra_files,
        }
    }

    /// Writes the attention of every target of a group; gives what is known of each before it is measured.
    fn attentions(
        &self,
        group: &[usize],
        writers: &mut [CheckpointWriter],
        gradients: &mut Option<LossGradients>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError> {
        let request = self.request(&self.targets[group[0]]);
        let plan = request.plan;
        if plan.options.method == Method::Coherent {
            let known = gradients.take().filter(|known| known.serve(&request));
            let known = known.map_or_else(|| LossGradients::take(&request, observer), Ok)?;
            let known = gradients.insert(known);
            let report = |(index, writer): (&usize, &mut CheckpointWriter)| {
                let request = self.request(&self.targets[*index]);
                Ok(Report {
                    layers: sequential(&request, known, writer, observer)?,
                    ..Report::default()
                })
            };
            return group.iter().zip(writers).map(report).collect();
        }
        let eval_options = self.evaluation.map_or_else(EvalOptions::default, |e| e.options);
        let decoupled = decouple(plan, self.source, request.calibration, &eval_options, observer)?;
        let model = DecoupledModel::new(self.source, plan, &decoupled.rotations).with_keys(&decoupled.keys);
        let partial_rope = self.evaluate(&model, Stage::EvaluateDecoupled, observer)?;
        let plans = group.iter().map(|index| self.targets[*index].plan);
        let mut outputs: Vec<Output<'_>> = plans
            .zip(writers)
            .map(|(plan, writer)| Output { plan, writer })
            .collect();
        let layers = second_pass(&request, &model, &mut outputs, observer)?;
        let report = |layers| Report {
            partial_rope,
            freqfold: Some(decoupled.freqfold),
            freqfold_trials: decoupled.trials.clone(),
            layers,
            ..Report::default()
        };
        Ok(layers.into_iter().map(report).collect())
    }

    fn evaluate(
        &self,
        model: &dyn LayeredModel,
        stage: Stage,
        observer: &mut dyn Observer,
    ) -> Result<Option<Perplexity>, ConvertError> {
        let Some(evaluation) = &self.evaluation else {
            return Ok(None);
        };
        observer.begin(stage);
        let mut steps = EvaluationSteps(observer);
        let result = perplexity(model, evaluation.windows, &evaluation.options, &mut steps)?;
        observer.end(stage, Some(result.perplexity));
        Ok(Some(result))
    }
}

/// Targets, by index, that go through the model together, in the order of their first ones.
fn groups(targets: &[Target<'_>]) -> Vec<Vec<usize>> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let group = groups
            .iter_mut()
            .find(|group| share_decoupling(&targets[group[0]], target));
        match group {
            Some(group) => group.push(index),
            None => groups.push(vec![index]),
        }
    }
    groups
}

/// Whether two targets differ only in what comes after RoPE is decoupled.
fn share_decoupling(one: &Target<'_>, other: &Target<'_>) -> bool {
    let decoupling = |target: &Target<'_>| {
        let plan = target.plan;
        let options = &plan.options;
        (
            options.method,
            options.qk_mqa_dim,
            plan.freqfolds.clone(),
            options.cal_batch_size,
        )
    };
    one.plan.options.method == Method::Transmla
        && decoupling(one) == decoupling(other)
        && one.calibration == other.calibration
}
