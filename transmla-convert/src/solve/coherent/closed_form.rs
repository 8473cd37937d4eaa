//! The coherent method for one layer: candidates for the split, and the one whose attention output errs least.

use faer::{Mat, MatRef, Scale};
use transmla_calib::Sensitivity;
use transmla_core::model::Rotary;
use transmla_core::model::attention::{GroupedAttention, LatentAttention};
use transmla_core::{Decoder, LayeredModel};
use transmla_lowrank::{KvFactors, KvInput, OutputMetric, metric_pca, quadratic_form};
use transmla_rope::{AttentionProfile, Decoupling, Eligibility, coherent, fit_queries, slot_energy};

use crate::layer::assemble;
use crate::layer::factors::{Factors, Queries};
use crate::layer::key_norm::LinearKeys;
use crate::layer::weights::HostWeights;
use crate::solve::coherent::example::{Example, output_cost};
use crate::solve::queries::factorise_queries;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// The slot choices that are tried in every layer; no single one is best for all.
pub(super) const CANDIDATES: [Eligibility; 4] = [
    Eligibility::Ownership,
    Eligibility::Threshold(0.9),
    Eligibility::Threshold(0.7),
    Eligibility::Threshold(0.5),
];

/// Regularisation of the metric, as a share of a block's mean eigenvalue.
const REGULARISATION: f64 = 1e-3;

/// Everything that the closed form of a layer is made from.
pub(crate) struct LayerProblem<'a> {
    pub plan: &'a Plan,
    pub source: &'a Decoder,
    pub layer: usize,
    pub attention: &'a GroupedAttention,
    /// What stands for keys that are normalised.
    pub keys: Option<&'a LinearKeys>,
    /// Second moment of the inputs, per token.
    pub moment: MatRef<'a, f64>,
    /// Sequences for the sensitivity statistics.
    pub statistics: &'a [Example],
    /// Sequences to choose on.
    pub choice: &'a [Example],
    /// Positions with the converted model's slot frequencies.
    pub rotary: &'a Rotary,
}

/// A layer in closed form.
pub(crate) struct ClosedForm {
    pub attention: LatentAttention,
    pub kept_energy: f64,
    /// Relative squared error of fitted keys.
    pub key_error: Option<f64>,
    /// What the error of the attention output costs on the held-out sequences.
    pub cost: f64,
    /// Energy of the latent's directions at full rank, in the metric of the output.
    pub spectrum: Vec<f64>,
    /// Share of each key pair's energy that each slot carries, `[slot][pair]`.
    pub slot_energy: Vec<Vec<f64>>,
}

/// Solves every candidate and keeps the best.
pub(crate) fn closed_form(problem: &LayerProblem<'_>) -> Result<ClosedForm, ConvertError> {
    let (plan, layer) = (problem.plan, problem.layer);
    let weights = HostWeights::read(problem.source, plan, layer, problem.keys)?;
    let queries = factorise_queries(plan, layer, weights.q.as_ref(), problem.moment)?;
    closed_form_of(problem, &weights, &queries)
}

/// The same of these weights and queries, which are those of the problem's heads.
pub(crate) fn closed_form_of(
    problem: &LayerProblem<'_>,
    weights: &HostWeights,
    queries: &Queries,
) -> Result<ClosedForm, ConvertError> {
    let (plan, layer) = (problem.plan, problem.layer);
    let statistics = Statistics::collect(problem)?;
    let key_moment = quadratic_form(weights.k.as_ref(), problem.moment).map_err(ConvertError::lowrank(layer))?;
    let splits = splits(plan, layer, key_moment.as_ref(), &statistics)?;
    let choices = splits
        .into_iter()
        .map(|split| Choice::new(problem, weights, &statistics, split));
    let mut choices = choices.collect::<Result<Vec<_>, _>>()?;
    if plan.has_positions(layer) {
        fit_choices(problem, weights, &statistics, &mut choices)?;
    }
    let mut best: Option<(ClosedForm, Decoupling)> = None;
    for choice in choices {
        let candidate = choice.solve(problem, queries)?;
        if best.as_ref().is_none_or(|(best, _)| candidate.0.cost < best.cost) {
            best = Some(candidate);
        }
    }
    let (best, split) = best.ok_or(ConvertError::Activations { layer })?;
    Ok(ClosedForm {
        slot_energy: slot_energy(&split, key_moment.as_ref()).map_err(ConvertError::rope(layer))?,
        ..best
    })
}

/// The splits of a layer's keys that are tried.
fn splits(
    plan: &Plan,
    layer: usize,
    key_moment: MatRef<'_, f64>,
    statistics: &Statistics,
) -> Result<Vec<Decoupling>, ConvertError> {
    let (shape, slots) = (plan.head_shape(), plan.converted().rope.of(layer).frequencies());
    if !plan.has_positions(layer) {
        return Ok(vec![Decoupling::without_positions(shape, 2 * slots.len())]);
    }
    let profile = statistics.profile();
    let split = |eligibility| coherent(key_moment, shape, &slots, &profile, eligibility).map(|split| split.decoupling);
    let all: Result<Vec<_>, _> = CANDIDATES.into_iter().map(split).collect();
    all.map_err(ConvertError::rope(layer))
}

/// Statistics of one layer, on the host.
struct Statistics {
    frequencies: Vec<f64>,
    profiles: Vec<Vec<Vec<f64>>>,
    query_moments: Vec<Mat<f64>>,
    pair_power: Vec<Vec<f64>>,
    value_metrics: Vec<Mat<f64>>,
}

impl Statistics {
    fn collect(problem: &LayerProblem<'_>) -> Result<Self, ConvertError> {
        let (plan, attention) = (problem.plan, problem.attention);
        let rope = plan.source().rope.of(problem.layer);
        let grouped = plan.grouped();
        let positions = problem.rotary.positions();
        let mut sensitivity = Sensitivity::new(attention.query_heads, grouped.head_dim, positions.len());
        let rotary = Rotary::new(rope, positions, problem.source.device());
        for example in problem.statistics {
            if let Some(gradients) = &example.gradients {
                sensitivity.add(attention, &example.inputs, gradients, example.batch, &rotary)?;
            }
        }
        let query_moments = sensitivity.query_moments();
        let pairs = grouped.head_dim / 2;
        let power = |moment: &Mat<f64>| {
            (0..pairs)
                .map(|j| moment[(j, j)] + moment[(j + pairs, j + pairs)])
                .collect()
        };
        Ok(Self {
            frequencies: rope.frequencies(),
            profiles: sensitivity.profiles(),
            pair_power: query_moments.iter().map(power).collect(),
            query_moments,
            value_metrics: sensitivity.value_metrics(),
        })
    }

    fn profile(&self) -> AttentionProfile<'_> {
        AttentionProfile {
            frequencies: &self.frequencies,
            distances: &self.profiles,
            pair_power: &self.pair_power,
        }
    }

    /// What errors of each head's keys (through the gains `up`) and values cost.
    fn metric(&self, problem: &LayerProblem<'_>, split: &Decoupling) -> OutputMetric {
        let shape = problem.plan.head_shape();
        let d = shape.head_dim;
        let scale = problem.plan.source_scale(problem.layer);
        let mut keys = vec![Mat::zeros(d, d); shape.key_heads];
        let mut values = vec![Mat::zeros(d, d); shape.key_heads];
        for head in 0..shape.query_heads {
            let group = shape.key_head_of(head);
            let turn = split.key_up[head].as_ref().subcols(group * d, d);
            keys[group] += Scale(scale * scale) * (turn.transpose() * &self.query_moments[head] * turn);
            values[group] += &self.value_metrics[head];
        }
        OutputMetric { keys, values }
    }
}

/// A choice of slot keys, and the latent of what they leave.
struct Choice {
    split: Decoupling,
    rope_keys: Mat<f64>,
    kv: KvFactors,
}

impl Choice {
    fn new(
        problem: &LayerProblem<'_>,
        weights: &HostWeights,
        statistics: &Statistics,
        split: Decoupling,
    ) -> Result<Self, ConvertError> {
        let (latent, layer) = (problem.plan.latent(), problem.layer);
        let keys = split
            .split_keys(weights.k.as_ref())
            .map_err(ConvertError::rope(layer))?;
        let input = KvInput {
            nope_keys: keys.nope.as_ref(),
            values: weights.v.as_ref(),
            key_up: &split.key_up,
            value_head_dim: latent.v_head_dim,
        };
        let metric = statistics.metric(problem, &split);
        let kv = metric_pca(&input, problem.moment, &metric, latent.kv_lora_rank, REGULARISATION);
        Ok(Self {
            kv: kv.map_err(ConvertError::lowrank(layer))?,
            rope_keys: keys.rope,
            split,
        })
    }

    /// Second moment of keys, slot keys and latent.
    fn moment(&self, problem: &LayerProblem<'_>, keys: MatRef<'_, f64>) -> Result<Mat<f64>, ConvertError> {
        let (slot_keys, latent) = (self.rope_keys.as_ref(), self.kv.down.as_ref());
        let turning = keys.nrows() + slot_keys.nrows();
        let mut rows = Mat::zeros(turning + latent.nrows(), keys.ncols());
        for (first, part) in [(0, keys), (keys.nrows(), slot_keys), (turning, latent)] {
            rows.as_mut().subrows_mut(first, part.nrows()).copy_from(part);
        }
        quadratic_form(rows.as_ref(), problem.moment).map_err(ConvertError::lowrank(problem.layer))
    }

    /// The layer's attention, and what it costs.
    fn solve(self, problem: &LayerProblem<'_>, queries: &Queries) -> Result<(ClosedForm, Decoupling), ConvertError> {
        let (plan, layer, device) = (problem.plan, problem.layer, problem.source.device());
        let (kept_energy, spectrum) = (self.kv.kept_energy, self.kv.spectrum.clone());
        let factors = Factors {
            kv: self.kv,
            rope_keys: self.rope_keys,
            queries,
            decoupling: self.split,
        };
        let output = problem.attention.o.clone();
        let q_norm = problem.attention.q_norm.as_ref();
        let key_scale = match (problem.keys, &problem.attention.k_norm) {
            (Some(keys), Some(norm)) => keys.scale(&problem.attention.k, norm, device),
            _ => None,
        };
        let attention = assemble::attention(plan, layer, &factors, q_norm, key_scale, output, device)?;
        let cost = output_cost(&attention, problem.choice, problem.rotary)?;
        let form = ClosedForm {
            attention,
            kept_energy,
            key_error: problem.keys.and_then(|keys| keys.error),
            cost,
            spectrum,
            slot_energy: Vec::new(),
        };
        Ok((form, factors.decoupling))
    }
}

/// Gives all choices the queries by which their slots and latent give the layer's scores.
fn fit_choices(
    problem: &LayerProblem<'_>,
    weights: &HostWeights,
    statistics: &Statistics,
    choices: &mut [Choice],
) -> Result<(), ConvertError> {
    let (plan, layer) = (problem.plan, problem.layer);
    let moments = choices.iter().map(|choice| choice.moment(problem, weights.k.as_ref()));
    let moments = moments.collect::<Result<Vec<_>, _>>()?;
    let moments: Vec<MatRef<'_, f64>> = moments.iter().map(Mat::as_ref).collect();
    let slots = plan.converted().rope.of(layer).frequencies();
    let all = fit_queries(&moments, plan.head_shape(), &slots, &statistics.profile());
    for (choice, fitted) in choices.iter_mut().zip(all.map_err(ConvertError::rope(layer))?) {
        choice.split.query_rope = fitted.query_rope;
        choice.kv.key_up = fitted.key_up;
    }
    Ok(())
}
