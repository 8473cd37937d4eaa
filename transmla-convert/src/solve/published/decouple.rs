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
use crate::solve::kept::{Kept, NothingKept, pack, unpack};
use crate::solve::memory::batch_sequences;
use crate::solve::method::Job;
use crate::solve::published::decoupled::DecoupledModel;
use crate::solve::published::kept_fits::{KeptFits, LayerFit};
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
    let job = Job {
        plan,
        source,
        calibration,
        evaluation: None,
    };
    decouple_with(&job, evaluation, &mut NothingKept, observer)
}

/// As [`decouple`], with what an earlier run has kept, and keeping each layer's rotations and each folding's perplexity.
pub(crate) fn decouple_with(
    job: &Job<'_>,
    evaluation: &EvalOptions,
    kept: &mut dyn Kept,
    observer: &mut dyn Observer,
) -> Result<Decoupled, ConvertError> {
    let Job {
        plan,
        source,
        calibration,
        ..
    } = *job;
    if let [freqfold] = *plan.freqfolds() {
        let mut fits = fit(job, (calibration, None), kept, observer)?;
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
    let mut fits = fit(job, (&fitting, Some(&held_out)), kept, observer)?;
    let mut trials: Vec<(usize, f64)> = Vec::new();
    let mut best = 0;
    for (index, rotations) in fits.part.iter().enumerate() {
        let freqfold = plan.freqfolds()[index];
        let stage = Stage::TryFreqfold(freqfold);
        observer.begin(stage);
        let part = format!("trial-{freqfold}");
        let known = kept.read(&part).and_then(|bytes| unpack::<f64>(&bytes, 1)?.next());
        let perplexity = match known {
            Some(known) => known,
            None => {
                let model = DecoupledModel::new(source, plan, rotations).with_keys(&fits.part_keys);
                let result = perplexity(&model, &held_out, evaluation, &mut EvaluationSteps(observer))?;
                kept.write(&part, pack([result.perplexity]))?;
                result.perplexity
            }
        };
        observer.end(stage, Some(perplexity));
        let improves = trials.last().is_none_or(|(_, previous)| perplexity < *previous);
        trials.push((freqfold, perplexity));
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

impl Fits {
    /// Adds what was found of the next layer.
    fn push(&mut self, fit: LayerFit) {
        let pairs = self.all.iter_mut().zip(fit.all);
        pairs
            .chain(self.part.iter_mut().zip(fit.part))
            .for_each(|(all, one)| all.push(one));
        self.keys.extend(fit.keys);
        self.part_keys.extend(fit.part_keys);
    }
}

/// Fits every layer that no earlier run has fitted, on the first text, or on that and on both if there are two.
fn fit(
    job: &Job<'_>,
    (fitting, held_out): (&TokenBatch, Option<&TokenBatch>),
    kept: &mut dyn Kept,
    observer: &mut dyn Observer,
) -> Result<Fits, ConvertError> {
    let Job { plan, source, .. } = *job;
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
    let mut kept = KeptFits {
        kept,
        shape,
        folds: &folds,
    };
    observer.begin(Stage::Decouple);
    let layers = source.config().num_hidden_layers;
    let found: Vec<LayerFit> = (0..layers).map_while(|layer| kept.find(layer)).collect();
    let known = found.len();
    if known > 0 {
        observer.resumed(Stage::Decouple, known as u64, layers as u64);
    }
    found.into_iter().for_each(|found| fits.push(found));
    if known < layers {
        let stream = |tokens: &TokenBatch| {
            let constant = plan.grouped().qkv_bias;
            let batch_size = batch_sequences(plan.recipe(), tokens.sequence(), tokens.sequence());
            CalibrationStream::new(source, tokens, batch_size, constant)
        };
        let mut streams = vec![stream(fitting)?];
        streams.extend(held_out.map(stream).transpose()?);
        let total = (layers * streams.iter().map(CalibrationStream::batches).sum::<usize>()) as u64;
        let mut done = 0;
        for index in 0..layers {
            observer.layer(index, layers);
            let layer = source.layer(index)?;
            if index >= known {
                let fit = fit_layer(job, (index, &layer), &streams, &folds)?;
                kept.keep(index, &fit)?;
                observer.saved_part(Stage::Decouple, index as u64 + 1, layers as u64);
                fits.push(fit);
            }
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
    }
    observer.advance(layers as u64, layers as u64);
    observer.end(Stage::Decouple, None);
    Ok(fits)
}

/// Fits a layer on the text of the first stream, or on that and on both if there are two.
fn fit_layer(
    job: &Job<'_>,
    (index, layer): (usize, &DecoderLayer),
    streams: &[CalibrationStream],
    folds: &[FoldSpec],
) -> Result<LayerFit, ConvertError> {
    let Job { plan, source, .. } = *job;
    let shape = plan.head_shape();
    let weights = HostWeights::read_keys(source, plan, index)?;
    let rotations = |keys: &Mat<f64>, moment: &SecondMoment| {
        if !plan.has_positions(index) {
            return Ok(folds
                .iter()
                .map(|fold| KeyRotation::without_positions(shape, fold))
                .collect());
        }
        let moment = quadratic_form(keys.as_ref(), moment.matrix()).map_err(ConvertError::lowrank(index))?;
        let fit = |fold| KeyRotation::fit(moment.as_ref(), shape, fold).map_err(ConvertError::rope(index));
        folds.iter().map(fit).collect::<Result<Vec<_>, ConvertError>>()
    };
    let mut found = LayerFit::default();
    let mut normed = NormedKeys::collect(&streams[0], layer, plan)?;
    let mut moment = streams[0].moment(layer)?;
    if let Some(held_out) = streams.get(1) {
        let keys = fit_keys(normed.as_ref(), &weights, &moment, index, &mut found.part_keys)?;
        found.part = rotations(&keys, &moment)?;
        moment.merge(&held_out.moment(layer)?)?;
        if let (Some(normed), Some(more)) = (&mut normed, NormedKeys::collect(held_out, layer, plan)?) {
            normed.merge(&more);
        }
    }
    let keys = fit_keys(normed.as_ref(), &weights, &moment, index, &mut found.keys)?;
    found.all = rotations(&keys, &moment)?;
    Ok(found)
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
    kept: &mut Option<LinearKeys>,
) -> Result<Mat<f64>, ConvertError> {
    let Some(NormedKeys { norm, moment: keys }) = normed else {
        return Ok(weights.clone());
    };
    let linear = match keys {
        Some(keys) => keys.fit(weights.as_ref(), norm, moment, layer)?,
        None => LinearKeys::exact(weights.as_ref(), norm, moment, layer)?,
    };
    let weights = linear.weights();
    *kept = Some(linear);
    Ok(weights)
}
