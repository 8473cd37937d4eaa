//! The factorisation of the published method: a balanced joint PCA of keys and values.

use faer::MatRef;
use transmla_lowrank::{JointPca, KvInput, joint_pca};
use transmla_rope::{Decoupling, SplitKeys};

use crate::layer::factors::{Factors, Queries};
use crate::layer::weights::HostWeights;
use crate::solve::queries::DAMPING;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

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
        value_head_dim: plan.latent().v_head_dim,
    };
    let rank = plan.latent().kv_lora_rank;
    let spec = JointPca {
        // A rank that only layers without positions can fill.
        rank: rank.min(nope.nrows() + weights.v.nrows()),
        balance: plan.recipe().balance_kv_ratio,
        // The published code leaves as many value dimensions out of the balance as the rotary key is wide.
        skipped_values: match plan.has_positions(layer) {
            true => plan.latent().qk_rope_head_dim,
            false => 0,
        },
        damping: DAMPING,
    };
    let kv = joint_pca(&input, moment, &spec).map_err(&lowrank)?.widened(rank);
    Ok(Factors {
        kv,
        rope_keys: rope,
        queries,
        decoupling,
    })
}
