//! The coherent conversion of a model: layer by layer, on the inputs that the converted layers before produce.

use faer::{Mat, Scale};
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention};
use transmla_core::{DecoderLayer, LayeredModel};

use crate::layer::assemble;
use crate::layer::key_norm::{KeyMoment, LinearKeys};
use crate::layer::latent_norm::latent_norms;
use crate::layer::stream::CalibrationStream;
use crate::layer::weights::HostWeights;
use crate::solve::coherent::closed_form::LayerProblem;
use crate::solve::coherent::example::{examples, residual_error, stream_error};
use crate::solve::coherent::groups::solve_layer;
use crate::solve::coherent::loss_gradients::{LossGradients, Parts};
use crate::solve::coherent::output_regression::regress_output;
use crate::solve::coherent::refine::{Refined, Refinement, refine};
use crate::solve::method::{Job, Output};
use crate::spec::error::ConvertError;
use crate::spec::figures::LayerFigures;
use crate::spec::options::KeyNorm;
use crate::spec::recipe::Recipe;
use crate::spec::report::{LayerReport, Observer, Stage};

/// Steps of reconstruction where a recipe does not say it.
const REFINEMENT: usize = 100;

/// Steps of reconstruction of each layer.
pub(crate) fn steps_of(recipe: &Recipe) -> usize {
    recipe.refine.unwrap_or(REFINEMENT)
}

/// Sequences of a step.
pub(crate) fn step_sequences(recipe: &Recipe) -> usize {
    recipe.refine_batch.unwrap_or(1).max(1)
}

/// Converts and writes every layer's attention.
pub(crate) fn sequential(
    output: &mut Output<'_>,
    gradients: &LossGradients,
    observer: &mut dyn Observer,
) -> Result<Vec<LayerReport>, ConvertError> {
    let job = output.job;
    let Job { plan, source, .. } = job;
    let LossGradients {
        text,
        split,
        batch_size,
        ..
    } = gradients;
    observer.begin(Stage::Compress);
    let constant = plan.grouped().qkv_bias;
    let stream = |rope| CalibrationStream::with_rope(source, rope, text, *batch_size, constant);
    let mut teacher = stream(&plan.source().rope)?;
    let mut student = stream(&plan.converted().rope)?;
    let layers = plan.source().num_hidden_layers;
    let steps = 2 * student.batches() + steps_of(plan.recipe());
    let total = (layers * steps) as u64;
    let mut reports = Vec::with_capacity(layers);
    for index in 0..layers {
        observer.layer(index, layers);
        let layer = source.layer(index)?;
        let Attention::Grouped(grouped) = &layer.attention else {
            return Err(ConvertError::AlreadyLatent {
                model_type: plan.source().model_type.clone(),
            });
        };
        let found = output.layers.find(plan, index, source.device(), observer);
        let mut done = (index * steps) as u64;
        let mut step = |error: Option<f64>, observer: &mut dyn Observer| {
            done += 1;
            observer.advance(done, total);
            if let Some(error) = error {
                observer.refining(index, error);
            }
        };
        let (mut attention, report) = match found {
            Some(found) => found,
            None => {
                let of_layer = gradients.of_layer(index, source)?;
                let examples = examples(&student, &teacher, &layer, of_layer.into_iter());
                let unsolved = Unsolved {
                    index,
                    layer: &layer,
                    attention: grouped,
                    parts: split.apply(&examples),
                };
                let (attention, report, figures) =
                    unsolved.solve(&job, &student, &mut |error| step(error, observer))?;
                output.layers.keep(plan, &attention, &report, observer)?;
                observer.solved(0, &figures);
                (attention, report)
            }
        };
        let written = assemble::written(plan, attention.clone());
        let norms = latent_norms(plan, &written, &student, &layer)?;
        let scale = plan.tensor_factors().attention_output;
        assemble::write(
            output.writer,
            source.checkpoint(),
            index,
            &written,
            norms.as_ref(),
            scale,
        )?;
        observer.layer_done(0, &report);
        reports.push(report);
        if let (true, Some(norms)) = (plan.recipe().use_qkv_norm, &norms) {
            attention = assemble::with_norms(attention, norms, plan.converted().rms_norm_eps);
        }
        let converted = DecoderLayer {
            attention: Attention::Latent(attention),
            ..layer.clone()
        };
        // Nothing is asked of the text behind the last layer.
        if index + 1 < layers {
            student.advance(&converted, &mut || step(None, observer))?;
            teacher.advance(&layer, &mut || step(None, observer))?;
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
    parts: Parts<'a>,
}

impl Unsolved<'_> {
    /// In closed form, and refined if the plan says so.
    fn solve(
        &self,
        job: &Job<'_>,
        student: &CalibrationStream,
        step: &mut dyn FnMut(Option<f64>),
    ) -> Result<(LatentAttention, LayerReport, LayerFigures), ConvertError> {
        let (plan, index, layer, grouped) = (job.plan, self.index, self.layer, self.attention);
        let rotary = student.rotary();
        let moment = student.moment(layer)?;
        let per_token: Mat<f64> = Scale(1.0 / moment.tokens().max(1) as f64) * moment.matrix();
        let keys = match &grouped.k_norm {
            None => None,
            Some(norm) => {
                let weights = HostWeights::read_keys(job.source, plan, index)?;
                Some(match plan.key_norm() {
                    KeyNorm::Exact => LinearKeys::exact(weights.as_ref(), norm, &moment, index)?,
                    KeyNorm::Regression => {
                        let keys = KeyMoment::collect(student, layer, grouped, plan.grouped().qkv_bias)?;
                        keys.fit(weights.as_ref(), norm, &moment, index)?
                    }
                })
            }
        };
        let problem = LayerProblem {
            plan,
            keys: keys.as_ref(),
            source: job.source,
            layer: index,
            attention: grouped,
            moment: per_token.as_ref(),
            statistics: self.parts.statistics,
            choice: self.parts.choice,
            rotary,
        };
        let closed = solve_layer(&problem)?;
        let norm = layer.attention_output_norm.as_ref();
        let Refined { attention, errors } = match steps_of(plan.recipe()) {
            0 => Refined {
                attention: closed.attention,
                errors: Vec::new(),
            },
            steps => {
                let problem = Refinement {
                    moment: per_token.as_ref(),
                    norm,
                    training: self.parts.training,
                    held_out: self.parts.held_out,
                    rotary,
                    steps,
                    batch: step_sequences(plan.recipe()),
                };
                refine(closed.attention, &problem, &mut |error| step(Some(error)))?
            }
        };
        let held_out = self.parts.held_out;
        let (attention, error) = match norm {
            // It hides from least squares how long the output is.
            Some(_) => {
                let error = residual_error(&attention, norm, held_out, rotary)?;
                (attention, error)
            }
            None => regress_output(attention, self.parts.training, held_out, rotary)?,
        };
        let report = LayerReport {
            layer: index,
            balance_ratio: 1.0,
            kept_energy: closed.kept_energy,
            key_error: closed.key_error,
            output_error: Some(error),
            stream_error: Some(stream_error(error, held_out, norm)?),
        };
        let figures = LayerFigures {
            layer: index,
            spectrum: closed.spectrum,
            slot_energy: closed.slot_energy,
            refinement: errors,
        };
        Ok((attention, report, figures))
    }
}
