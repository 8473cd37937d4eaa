//! The second pass of the published method: the decoupled model, layer by layer, factorised to every rank at once.

use faer::MatRef;
use transmla_core::LayeredModel;
use transmla_core::model::attention::{Attention, DecoupledQueries};
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
        let q_norm = match &decoupled.q {
            DecoupledQueries::Linear { .. } => None,
            DecoupledQueries::Normed { heads, .. } => Some(&heads.norm),
        };
        let moment = stream.moment(&layer)?;
        let weights = HostWeights::read(model.source(), plan, index, model.keys(index))?;
        let decoupling = model.decoupling(index);
        let slot_energy = energy_of_slots(index, &decoupling, weights.k.as_ref(), moment.matrix())?;
        for (model_index, (output, reports)) in outputs.iter_mut().zip(&mut reports).enumerate() {
            let plan = output.job.plan;
            let queries = factorise_queries(plan, index, weights.q.as_ref(), moment.matrix())?;
            let factors = factorise(plan, index, &weights, &queries, decoupling.clone(), moment.matrix())?;
            let (key_scale, o) = (decoupled.key_scale.clone(), decoupled.o.clone());
            let attention = assemble::attention(plan, index, &factors, q_norm, key_scale, o, model.device())?;
            let attention = assemble::written(plan, attention);
            let norms = latent_norms(plan, &attention, &stream, &layer)?;
            let (norms, source) = (norms.as_ref(), model.source().checkpoint());
            let scale = plan.tensor_factors().attention_output;
            assemble::write(output.writer, source, index, &attention, norms, scale)?;
            let report = LayerReport {
                layer: index,
                balance_ratio: factors.kv.ratio,
                kept_energy: factors.kv.kept_energy,
                key_error: model.keys(index).and_then(|keys| keys.error),
                output_error: None,
                stream_error: None,
            };
            observer.layer_done(model_index, &report);
            reports.push(report);
            observer.solved(
                model_index,
                &LayerFigures {
                    layer: index,
                    spectrum: factors.kv.spectrum,
                    slot_energy: slot_energy.clone(),
                    refinement: Vec::new(),
                },
            );
        }
        drop((weights, moment));
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
