//! The coherent conversion of a model: layer by layer, on the inputs that the converted layers before produce.

use burn::tensor::Tensor;
use faer::{Mat, Scale};
use transmla_calib::output_gradients;
use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention};
use transmla_core::{CoreError, DecoderLayer, LayeredModel, TokenBatch};

use crate::coherent::{LayerProblem, closed_form};
use crate::example::{Example, examples, residual_error};
use crate::kept_layers::KeptLayers;
use crate::key_norm::KeyMoment;
use crate::latent_norm::latent_norms;
use crate::refine::{Refinement, refine};
use crate::weights::HostWeights;
use crate::{CalibrationStream, ConvertError, LayerReport, Observer, Plan, Request, Stage, assemble};

/// Tokens that the sensitivity statistics are taken from.
const STATISTICS: usize = 4096;

/// One in this many batches is held out to choose on.
const HOLDOUT: usize = 8;

/// Shorter calibration samples are joined to sequences of this length, or the model's longest: a phase error that grows
/// with distance must be seen at distances that will occur.
const SEQUENCE: usize = 512;

/// About how many of the calibration tokens gradients are kept for.
pub(crate) fn gradient_tokens(tokens: usize) -> usize {
    (STATISTICS + tokens / HOLDOUT).min(tokens)
}

/// The calibration text as this method reads it, and the loss's gradients on part of it: what does not depend on the
/// shapes of the converted model.
pub(crate) struct LossGradients {
    text: TokenBatch,
    cal_batch_size: usize,
    batch_size: usize,
    split: Split,
    /// By batch, where needed, those at every layer's attention output.
    batches: Vec<Option<Vec<Tensor<2>>>>,
}

impl LossGradients {
    /// Streams the original forwards and backwards.
    pub fn take(request: &Request<'_>, observer: &mut dyn Observer) -> Result<Self, ConvertError> {
        let plan = request.plan;
        let text = join_samples(request.calibration, plan.source.max_position_embeddings.min(SEQUENCE));
        let cal_batch_size = plan.options.cal_batch_size;
        let batch_size = (cal_batch_size * request.calibration.sequence() / text.sequence()).max(1);
        let split = Split::new(text.batch().div_ceil(batch_size), batch_size * text.sequence());
        let batches = gradients(request, &text, batch_size, &split, observer)?;
        Ok(Self {
            text,
            cal_batch_size,
            batch_size,
            split,
            batches,
        })
    }

    /// Whether they are what a plan for the same model and text would take.
    pub fn serve(&self, plan: &Plan) -> bool {
        self.cal_batch_size == plan.options.cal_batch_size
    }
}

/// Converts and writes every layer's attention.
pub(crate) fn sequential(
    request: &Request<'_>,
    gradients: &LossGradients,
    writer: &mut CheckpointWriter,
    observer: &mut dyn Observer,
) -> Result<Vec<LayerReport>, ConvertError> {
    let Request { plan, source, .. } = *request;
    let LossGradients { text, split, .. } = gradients;
    let (batch_size, gradients) = (gradients.batch_size, &gradients.batches);

    observer.begin(Stage::Compress);
    let constant = plan.grouped.qkv_bias;
    let stream = |rope| CalibrationStream::with_rope(source, rope, text, batch_size, constant);
    let mut teacher = stream(&plan.source.rope)?;
    let mut student = stream(&plan.target.rope)?;
    let layers = plan.source.num_hidden_layers;
    let steps = 2 * student.batches() + plan.options.refine;
    let total = (layers * steps) as u64;
    let mut reports = Vec::with_capacity(layers);
    let mut kept = KeptLayers::of(request);
    for index in 0..layers {
        let mut done = (index * steps) as u64;
        let mut step = |error: Option<f64>| {
            done += 1;
            observer.advance(done, total);
            if let Some(error) = error {
                observer.refining(index, error);
            }
        };
        let layer = source.layer(index)?;
        let Attention::Grouped(grouped) = &layer.attention else {
            return Err(ConvertError::AlreadyLatent {
                model_type: plan.source.model_type.clone(),
            });
        };
        let (mut attention, report) = match kept.find(plan, index, grouped)? {
            Some(found) => found,
            None => {
                let of_layer = gradients
                    .iter()
                    .map(|batch| batch.as_ref().map(|layers| layers[index].clone()));
                let examples = examples(&student, &teacher, &layer, of_layer);
                let unsolved = Unsolved {
                    index,
                    layer: &layer,
                    attention: grouped,
                    examples: &examples,
                };
                let (attention, report) = unsolved.solve(request, &student, split, &mut step)?;
                kept.keep(plan, &attention, &report)?;
                (attention, report)
            }
        };
        let norms = latent_norms(plan, &attention, &student, &layer)?;
        for (name, values) in assemble::tensors(index, &attention, norms.as_ref(), plan.residual_scale())? {
            writer.write(&name, &values)?;
        }
        reports.push(report);
        if let (true, Some(norms)) = (plan.options.use_qkv_norm, &norms) {
            attention = assemble::with_norms(attention, norms, plan.target.rms_norm_eps);
        }
        let converted = DecoderLayer {
            attention: Attention::Latent(attention),
            ..layer.clone()
        };
        // Nothing is asked of the text behind the last layer.
        if index + 1 < layers {
            student.advance(&converted, &mut || step(None));
            teacher.advance(&layer, &mut || step(None));
        }
    }
    observer.advance(total, total);
    observer.end(Stage::Compress, None);
    Ok(reports)
}

/// A layer to solve, in the original model and in front of it the text through the converted layers.
struct Unsolved<'a> {
    index: usize,
    layer: &'a DecoderLayer,
    attention: &'a GroupedAttention,
    examples: &'a [Example],
}

impl Unsolved<'_> {
    /// In closed form, and refined if the plan says so.
    fn solve(
        &self,
        request: &Request<'_>,
        student: &CalibrationStream,
        split: &Split,
        step: &mut dyn FnMut(Option<f64>),
    ) -> Result<(LatentAttention, LayerReport), ConvertError> {
        let (plan, index, layer, grouped) = (request.plan, self.index, self.layer, self.attention);
        let rotary = student.rotary();
        let moment = student.moment(layer)?;
        let per_token: Mat<f64> = Scale(1.0 / moment.tokens().max(1) as f64) * moment.matrix();
        let (training, held_out) = split.apply(self.examples);
        let keys = match &grouped.k_norm {
            None => None,
            Some(norm) => {
                let weights = HostWeights::read_keys(request.source, plan, index)?;
                let key_moment = KeyMoment::collect(student, layer, grouped, plan.grouped.qkv_bias)?;
                Some(key_moment.fit(weights.as_ref(), norm, &moment, index)?)
            }
        };
        let problem = LayerProblem {
            plan,
            keys: keys.as_ref(),
            source: request.source,
            layer: index,
            attention: grouped,
            moment: per_token.as_ref(),
            statistics: &training[..split.statistics],
            held_out,
            rotary,
        };
        let closed = closed_form(&problem)?;
        let norm = layer.attention_output_norm.as_ref();
        let attention = match plan.options.refine {
            0 => closed.attention,
            steps => {
                let problem = Refinement {
                    moment: per_token.as_ref(),
                    norm,
                    training,
                    held_out,
                    rotary,
                    steps,
                };
                refine(closed.attention, &problem, &mut |error| step(Some(error)))?
            }
        };
        let report = LayerReport {
            layer: index,
            balance_ratio: 1.0,
            kept_energy: closed.kept_energy,
            key_error: closed.key_error,
            output_error: Some(residual_error(&attention, norm, held_out, rotary)?),
        };
        Ok((attention, report))
    }
}

/// Which batches serve what.
struct Split {
    batches: usize,
    /// So many batches at the start give statistics.
    statistics: usize,
    /// So many batches at the end are held out; the only one serves both.
    held_out: usize,
}

impl Split {
    fn new(batches: usize, tokens_per_batch: usize) -> Self {
        let held_out = (batches / HOLDOUT).max(1);
        let training = (batches - held_out).max(1);
        Self {
            batches,
            statistics: STATISTICS.div_ceil(tokens_per_batch).min(training),
            held_out,
        }
    }

    fn apply<'a>(&self, examples: &'a [Example]) -> (&'a [Example], &'a [Example]) {
        match self.batches {
            1 => (examples, examples),
            count => examples.split_at(count - self.held_out),
        }
    }

    /// Gradients are needed where statistics are taken and where candidates are compared.
    fn needs_gradients(&self, batch: usize) -> bool {
        batch < self.statistics || batch + self.held_out >= self.batches
    }
}

/// Samples one after the other in sequences of about `length` tokens, where they are shorter and there are enough.
fn join_samples(tokens: &TokenBatch, length: usize) -> TokenBatch {
    let factor = (length / tokens.sequence()).clamp(1, tokens.batch());
    let (batch, sequence) = (tokens.batch() / factor, tokens.sequence() * factor);
    let ids = tokens.ids()[..batch * sequence].to_vec();
    TokenBatch::from_ids(ids, batch, sequence).unwrap_or_else(|_| tokens.clone())
}

/// By batch, where needed, the loss's gradients at every layer's attention output.
fn gradients(
    request: &Request<'_>,
    text: &TokenBatch,
    batch_size: usize,
    split: &Split,
    observer: &mut dyn Observer,
) -> Result<Vec<Option<Vec<Tensor<2>>>>, CoreError> {
    observer.begin(Stage::Gradients);
    let gradients = (0..split.batches)
        .map(|batch| {
            let start = batch * batch_size;
            let wanted = split
                .needs_gradients(batch)
                .then(|| text.rows(start..start + batch_size))
                .flatten();
            let gradients = wanted
                .map(|tokens| output_gradients(request.source, &tokens))
                .transpose();
            observer.advance(batch as u64 + 1, split.batches as u64);
            gradients
        })
        .collect();
    observer.end(Stage::Gradients, None);
    gradients
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_samples_are_joined_and_none_is_lost_without_need() {
        let tokens = TokenBatch::from_ids((0..40).collect(), 10, 4).unwrap();
        let joined = join_samples(&tokens, 8);
        assert_eq!((joined.batch(), joined.sequence()), (5, 8));
        assert_eq!(joined.ids(), tokens.ids());
        assert_eq!(join_samples(&tokens, 3), tokens);
        assert_eq!(join_samples(&tokens, 1000).batch(), 1);
    }

    #[test]
    fn batches_are_used_for_one_thing() {
        let split = Split::new(16, 2048);
        assert_eq!((split.statistics, split.held_out), (2, 2));
        assert!(split.needs_gradients(1) && !split.needs_gradients(2) && split.needs_gradients(14));
        let split = Split::new(1, 512);
        assert_eq!((split.statistics, split.held_out), (1, 1));
    }
}
