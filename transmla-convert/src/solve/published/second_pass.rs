//! The second pass of the published method: the decoupled model, layer by layer, factorised to every rank at once.

use faer::MatRef;
use transmla_calib::SecondMoment;
use transmla_core::LayeredModel;
use transmla_core::model::attention::{Attention, DecoupledAttention, DecoupledQueries, LatentAttention};
use transmla_lowrank::quadratic_form;
use transmla_rope::{Decoupling, slot_energy};

use crate::layer::assemble;
use crate::layer::latent_norm::latent_norms;
use crate::layer::stream::CalibrationStream;
use crate::layer::weights::HostWeights;
use crate::solve::memory::batch_sequences;
use crate::solve::method::{Job, Output};
use crate::solve::published::compress::factorise;
use crate::solve::published::decoupled::DecoupledModel;
use crate::solve::queries::factorise_queries;
use crate::spec::error::ConvertError;
use crate::spec::figures::LayerFigures;
use crate::spec::plan::Plan;
use crate::spec::report::{LayerReport, Observer, Stage};

/// Streams the decoupled model over the calibration text of `job`, whose plan counts for what all outputs have in
/// common; factorises and writes each layer's attention. Gives the layers' figures of every output.
pub(crate) fn second_pass(
    job: &Job<'_>,
    model: &DecoupledModel<'_>,
    outputs: &mut [Output<'_>],
    observer: &mut dyn Observer,
) -> Result<Vec<Vec<LayerReport>>, ConvertError> {
    let plan = job.plan;
    let constant = plan.grouped().qkv_bias;
    observer.begin(Stage::Compress);
    let sequence = job.calibration.sequence();
    let mut stream = CalibrationStream::new(
        model,
        job.calibration,
        batch_sequences(plan.recipe(), sequence, sequence),
        constant,
    )?;
    let layers = plan.source().num_hidden_layers;
    let total = (layers * stream.batches()) as u64;
    let mut done = 0;
    let mut reports = vec![Vec::with_capacity(layers); outputs.len()];
    for index in 0..layers {
        observer.layer(index, layers);
        let layer = model.layer(index)?;
        let Attention::Decoupled(decoupled) = &layer.attention else {
            return Err(ConvertError::AlreadyLatent {
                model_type: plan.source().model_type.clone(),
            });
        };
        let found: Vec<_> = outputs
            .iter_mut()
            .map(|output| output.layers.find(output.job.plan, index, model.device(), observer))
            .collect();
        let mut unsolved = None;
        for (model_index, ((output, reports), found)) in outputs.iter_mut().zip(&mut reports).zip(found).enumerate() {
            let plan = output.job.plan;
            let (attention, report) = match found {
                Some(found) => found,
                None => {
                    let unsolved: &Unsolved<'_> = match &mut unsolved {
                        Some(known) => known,
                        none => none.insert(Unsolved::new(
                            job.plan,
                            model,
                            (index, decoupled),
                            stream.moment(&layer)?,
                        )?),
                    };
                    let (attention, report, figures) = unsolved.solve(plan, model)?;
                    output.layers.keep(plan, &attention, &report, observer)?;
                    observer.solved(model_index, &figures);
                    (attention, report)
                }
            };
            let attention = assemble::written(plan, attention);
            let norms = latent_norms(plan, &attention, &stream, &layer)?;
            let (norms, source) = (norms.as_ref(), model.source().checkpoint());
            let scale = plan.tensor_factors().attention_output;
            assemble::write(output.writer, source, index, &attention, norms, scale)?;
            observer.layer_done(model_index, &report);
            reports.push(report);
        }
        drop(unsolved);
        // Nothing is asked of the text behind the last layer.
        if index + 1 < layers {
            stream.advance(&layer, &mut || {
                done += 1;
                observer.advance(done, total);
            })?;
        }
    }
    observer.advance(total, total);
    observer.end(Stage::Compress, None);
    Ok(reports)
}

/// A layer of the decoupled model that is to be factorised, to one rank or several.
struct Unsolved<'a> {
    index: usize,
    attention: &'a DecoupledAttention,
    moment: SecondMoment,
    weights: HostWeights,
    decoupling: Decoupling,
    slot_energy: Vec<Vec<f64>>,
}

impl<'a> Unsolved<'a> {
    fn new(
        plan: &Plan,
        model: &DecoupledModel<'_>,
        (index, attention): (usize, &'a DecoupledAttention),
        moment: SecondMoment,
    ) -> Result<Self, ConvertError> {
        let weights = HostWeights::read(model.source(), plan, index, model.keys(index))?;
        let decoupling = model.decoupling(index);
        let slot_energy = energy_of_slots(index, &decoupling, weights.k.as_ref(), moment.matrix())?;
        Ok(Self {
            index,
            attention,
            moment,
            weights,
            decoupling,
            slot_energy,
        })
    }

    fn solve(
        &self,
        plan: &Plan,
        model: &DecoupledModel<'_>,
    ) -> Result<(LatentAttention, LayerReport, LayerFigures), ConvertError> {
        let (index, moment) = (self.index, self.moment.matrix());
        let q_norm = match &self.attention.q {
            DecoupledQueries::Linear { .. } => None,
            DecoupledQueries::Normed { heads, .. } => Some(&heads.norm),
        };
        let queries = factorise_queries(plan, index, self.weights.q.as_ref(), moment)?;
        let factors = factorise(plan, index, &self.weights, &queries, self.decoupling.clone(), moment)?;
        let (key_scale, o) = (self.attention.key_scale.clone(), self.attention.o.clone());
        let attention = assemble::attention(plan, index, &factors, q_norm, key_scale, o, model.device())?;
        let report = LayerReport {
            layer: index,
            balance_ratio: factors.kv.ratio,
            kept_energy: factors.kv.kept_energy,
            key_error: model.keys(index).and_then(|keys| keys.error),
            output_error: None,
            stream_error: None,
        };
        let figures = LayerFigures {
            layer: index,
            spectrum: factors.kv.spectrum,
            slot_energy: self.slot_energy.clone(),
            refinement: Vec::new(),
        };
        Ok((attention, report, figures))
    }
}

/// What the slots carry of a layer's keys, given the second moment of its inputs.
fn energy_of_slots(
    layer: usize,
    decoupling: &Decoupling,
    keys: MatRef<'_, f64>,
    moment: MatRef<'_, f64>,
) -> Result<Vec<Vec<f64>>, ConvertError> {
    let keys = quadratic_form(keys, moment).map_err(ConvertError::lowrank(layer))?;
    slot_energy(decoupling, keys.as_ref()).map_err(ConvertError::rope(layer))
}
