//! The first pass: one rotation per layer, and the choice of freqfold.

use faer::Mat;
use transmla_calib::SecondMoment;
use transmla_core::model::attention::Attention;
use transmla_core::model::{DecoderLayer, RmsNorm};
use transmla_core::{Decoder, LayeredModel, TokenBatch};
use transmla_eval::{EvalOptions, perplexity};
use transmla_lowrank::quadratic_form;
use transmla_rope::{FoldSpec, KeyRotation};

use crate::layer::key_norm::{KeyMoment, LinearKeys};
use crate::layer::stream::CalibrationStream;
use crate::layer::weights::HostWeights;
use crate::solve::memory::batch_sequences;
use crate::solve::published::decoupled::DecoupledModel;
use crate::spec::error::ConvertError;
use crate::spec::options::KeyNorm;
use crate::spec::plan::Plan;
use crate::spec::report::{EvaluationSteps, Observer, Stage};

/// The result of the first pass.
#[derive(Debug, Clone)]
pub struct Decoupled {
    /// One rotation per layer.
    pub rotations: Vec<KeyRotation>,
    /// Keys of each layer, where the source normalises them; otherwise empty.
    pub keys: Vec<LinearKeys>,
    /// Frequency folding of all of them.
    pub freqfold: usize,
    /// Perplexity on held-out calibration text of each folding that was tried.
    pub trials: Vec<(usize, f64)>,
}

/// One in this many calibration samples is held out to choose the folding on.
pub(crate) const HOLDOUT: usize = 8;

/// Streams the original model over the calibration text and fits the rotations of every layer.
///
/// With a single folding all text is fitted on. With several, those fitted on seven eighths of the samples are compared
/// by perplexity on the others, in ascending order until it no longer falls; the winner is then fitted on all of them.
///
/// # Errors
/// The model cannot be read or is not finite on the text; a single sample where a folding is to be chosen.
pub fn decouple(
    plan: &Plan,
    source: &Decoder,
    calibration: &TokenBatch,
    evaluation: &EvalOptions,
    observer: &mut dyn Observer,
) -> Result<Decoupled, ConvertError> {
    if let [freqfold] = *plan.freqfolds() {
        let mut fits = fit(plan, source, calibration, None, observer)?;
        return Ok(Decoupled {
            rotations: fits.all.remove(0),
            keys: fits.keys,
            freqfold,
            trials: Vec::new(),
        });
    }
    check_samples(plan, calibration)?;
    let every = HOLDOUT.min(calibration.batch());
    let (fitting, held_out) = transmla_calib::split_holdout(calibration, every)?;
    let mut fits = fit(plan, source, &fitting, Some(&held_out), observer)?;
    let mut trials: Vec<(usize, f64)> = Vec::new();
    let mut best = 0;
    for (index, rotations) in fits.part.iter().enumerate() {
        let freqfold = plan.freqfolds()[index];
        let stage = Stage::TryFreqfold(freqfold);
        observer.begin(stage);
        let model = DecoupledModel::new(source, plan, rotations).with_keys(&fits.part_keys);
        let result = perplexity(&model, &held_out, evaluation, &mut EvaluationSteps(observer))?;
        observer.end(stage, Some(result.perplexity));
        let improves = trials.last().is_none_or(|(_, previous)| result.perplexity < *previous);
        trials.push((freqfold, result.perplexity));
        if !improves {
            break;
        }
        best = index;
    }
    Ok(Decoupled {
        rotations: fits.all.swap_remove(best),
        keys: fits.keys,
        freqfold: plan.freqfolds()[best],
        trials,
    })
}

/// Whether there is text to fit on and text to choose on.
pub(crate) fn check_samples(plan: &Plan, calibration: &TokenBatch) -> Result<(), ConvertError> {
    let needed = 2;
    if plan.freqfolds().len() > 1 && calibration.batch() < needed {
        return Err(ConvertError::FewSamples {
            found: calibration.batch(),
            needed,
            why: "freqfold auto compares foldings on samples held out from fitting (or give `freqfold` a number)",
        });
    }
    Ok(())
}

/// Rotations by folding, then by layer.
struct Fits {
    /// Fitted on all text.
    all: Vec<Vec<KeyRotation>>,
    /// Fitted without the held-out text; empty if there is none.
    part: Vec<Vec<KeyRotation>>,
    /// Keys by layer, where the source normalises them: fitted on all text, and without the held-out text.
    keys: Vec<LinearKeys>,
    part_keys: Vec<LinearKeys>,
}

fn fit(
    plan: &Plan,
    source: &Decoder,
    fitting: &TokenBatch,
    held_out: Option<&TokenBatch>,
    observer: &mut dyn Observer,
) -> Result<Fits, ConvertError> {
    let shape = plan.head_shape();
    let folds = plan
        .freqfolds()
        .iter()
        .map(|freqfold| FoldSpec::new(shape, plan.latent().qk_rope_head_dim, *freqfold))
        .collect::<Result<Vec<_>, _>>()
        .map_err(ConvertError::rope(0))?;
    let mut fits = Fits {
        all: vec![Vec::new(); folds.len()],
        part: vec![Vec::new(); if held_out.is_some() { folds.len() } else { 0 }],
        keys: Vec::new(),
        part_keys: Vec::new(),
    };
    let stream = |tokens: &TokenBatch| {
        let constant = plan.grouped().qkv_bias;
        let batch_size = batch_sequences(plan.recipe(), tokens.sequence(), tokens.sequence());
        CalibrationStream::new(source, tokens, batch_size, constant)
    };
    observer.begin(Stage::Decouple);
    let mut streams = vec![stream(fitting)?];
    streams.extend(held_out.map(stream).transpose()?);
    let layers = source.config().num_hidden_layers;
    let total = (layers * streams.iter().map(CalibrationStream::batches).sum::<usize>()) as u64;
    let mut done = 0;
    for index in 0..layers {
        observer.layer(index, layers);
        let layer = source.layer(index)?;
        let weights = HostWeights::read_keys(source, plan, index)?;
        let rotations = |keys: &Mat<f64>, moment: &SecondMoment, into: &mut Vec<Vec<KeyRotation>>| {
            if !plan.has_positions(index) {
                let still = folds.iter().map(|fold| KeyRotation::without_positions(shape, fold));
                into.iter_mut().zip(still).for_each(|(into, still)| into.push(still));
                return Ok(());
            }
            let moment = quadratic_form(keys.as_ref(), moment.matrix()).map_err(ConvertError::lowrank(index))?;
            for (fold, rotations) in folds.iter().zip(into) {
                rotations.push(KeyRotation::fit(moment.as_ref(), shape, fold).map_err(ConvertError::rope(index))?);
            }
            Ok::<(), ConvertError>(())
        };
        let mut normed = NormedKeys::collect(&streams[0], &layer, plan)?;
        let mut moment = streams[0].moment(&layer)?;
        if let Some(held_out) = streams.get(1) {
            let keys = fit_keys(normed.as_ref(), &weights, &moment, index, &mut fits.part_keys)?;
            rotations(&keys, &moment, &mut fits.part)?;
            moment.merge(&held_out.moment(&layer)?)?;
            if let (Some(normed), Some(more)) = (&mut normed, NormedKeys::collect(held_out, &layer, plan)?) {
                normed.merge(&more);
            }
        }
        let keys = fit_keys(normed.as_ref(), &weights, &moment, index, &mut fits.keys)?;
        rotations(&keys, &moment, &mut fits.all)?;
        for stream in &mut streams {
            // Nothing is asked of the text behind the last layer.
            if index + 1 < layers {
                stream.advance(&layer, &mut || {
                    done += 1;
                    observer.advance(done, total);
                })?;
            }
        }
    }
    observer.advance(total, total);
    observer.end(Stage::Decouple, None);
    Ok(fits)
}

/// What is known of keys that are normalised.
struct NormedKeys<'a> {
    norm: &'a RmsNorm,
    /// Where they are fitted.
    moment: Option<KeyMoment>,
}

impl<'a> NormedKeys<'a> {
    /// Nothing if the layer does not normalise its keys.
    fn collect(stream: &CalibrationStream, layer: &'a DecoderLayer, plan: &Plan) -> Result<Option<Self>, ConvertError> {
        let Attention::Grouped(attention) = &layer.attention else {
            return Ok(None);
        };
        let Some(norm) = &attention.k_norm else {
            return Ok(None);
        };
        let moment = match plan.key_norm() {
            KeyNorm::Exact => None,
            KeyNorm::Regression => Some(KeyMoment::collect(stream, layer, attention, plan.grouped().qkv_bias)?),
        };
        Ok(Some(Self { norm, moment }))
    }

    /// Adds what is known from more text.
    fn merge(&mut self, other: &Self) {
        if let (Some(moment), Some(more)) = (&mut self.moment, &other.moment) {
            moment.merge(more);
        }
    }
}

/// The weights as they are, or those that stand for normalised keys, which are kept too.
fn fit_keys(
    normed: Option<&NormedKeys<'_>>,
    weights: &Mat<f64>,
    moment: &SecondMoment,
    layer: usize,
    kept: &mut Vec<LinearKeys>,
) -> Result<Mat<f64>, ConvertError> {
    let Some(NormedKeys { norm, moment: keys }) = normed else {
        return Ok(weights.clone());
    };
    let linear = match keys {
        Some(keys) => keys.fit(weights.as_ref(), norm, moment, layer)?,
        None => LinearKeys::exact(weights.as_ref(), norm, moment, layer)?,
    };
    let weights = linear.weights();
    kept.push(linear);
    Ok(weights)
}
