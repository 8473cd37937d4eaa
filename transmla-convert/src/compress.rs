//! The second pass: from the decoupled model to DeepSeek's tensors, one layer at a time.

use faer::{Mat, MatRef};
use transmla_core::model::layer_prefix;
use transmla_lowrank::{JointPca, KvFactors, KvInput, QueryFactors, joint_pca, query_pca};
use transmla_rope::{Decoupling, SplitKeys};

use crate::weights::HostWeights;
use crate::{ConvertError, Plan};

/// Share of the mean diagonal added to second moments before their eigenvectors are taken, as published.
const DAMPING: f64 = 0.01;

/// One layer's factorised attention, on the host.
pub(crate) struct Factors<'a> {
    /// Keys and values.
    pub kv: KvFactors,
    /// The shared rotary key, `[d_r, hidden (+ 1)]`, half-split.
    pub rope_keys: Mat<f64>,
    /// Queries.
    pub queries: &'a Queries,
    /// The split that made the rotary key; it gives the rotary queries.
    pub decoupling: Decoupling,
}

/// Query weights before the rotary rows are added.
pub(crate) enum Queries {
    /// `[H·d, hidden (+ 1)]`.
    Full(Mat<f64>),
    /// A query latent; the bias stays with the up-projection.
    LowRank {
        /// Down- and up-projection.
        factors: QueryFactors,
        /// `[H·d]`.
        bias: Option<Vec<f64>>,
    },
}

/// Factorises one layer, given the second moment of its inputs.
pub(crate) fn factorise<'a>(
    plan: &Plan,
    layer: usize,
    weights: &HostWeights,
    queries: &'a Queries,
    decoupling: Decoupling,
    moment: MatRef<'_, f64>,
) -> Result<Factors<'a>, ConvertError> {
    let lowrank = ConvertError::lowrank(layer);
    let SplitKeys { rope, nope } = decoupling
        .split_keys(weights.k.as_ref())
        .map_err(ConvertError::rope(layer))?;
    let input = KvInput {
        nope_keys: nope.as_ref(),
        values: weights.v.as_ref(),
        key_up: &decoupling.key_up,
        value_head_dim: plan.latent.v_head_dim,
    };
    let spec = JointPca {
        rank: plan.latent.kv_lora_rank,
        balance: plan.options.balance_kv_ratio,
        // The published code leaves as many value dimensions out of the balance as the rotary key is wide.
        skipped_values: plan.latent.qk_rope_head_dim,
        damping: DAMPING,
    };
    let kv = joint_pca(&input, moment, &spec).map_err(&lowrank)?;
    Ok(Factors {
        kv,
        rope_keys: rope,
        queries,
        decoupling,
    })
}

/// The queries as they are, or through a latent if the plan has one.
pub(crate) fn factorise_queries(
    plan: &Plan,
    layer: usize,
    queries: MatRef<'_, f64>,
    moment: MatRef<'_, f64>,
) -> Result<Queries, ConvertError> {
    let Some(rank) = plan.options.q_lora_rank else {
        return Ok(Queries::Full(queries.to_owned()));
    };
    // The bias is kept exactly, so only what varies with the input has to go through the latent.
    let hidden = plan.source.hidden_size;
    let (linear, bias) = queries.split_at_col(hidden);
    let moment = moment.submatrix(0, 0, hidden, hidden);
    Ok(Queries::LowRank {
        factors: query_pca(linear, moment, rank, DAMPING).map_err(ConvertError::lowrank(layer))?,
        bias: (bias.ncols() == 1).then(|| bias.col(0).iter().copied().collect()),
    })
}

/// Where the tensors of a layer's attention are.
pub(crate) fn attention_prefix(layer: usize) -> String {
    format!("{}.self_attn", layer_prefix(layer))
}
