//! From factors to the tensors of a DeepSeek checkpoint.

use faer::{Mat, MatRef, Scale};
use transmla_rope::interleave_rows;

use crate::compress::{Factors, Queries, attention_prefix};
use crate::latent_norm::LatentNorms;
use crate::weights::split_bias;
use crate::{ConvertError, Plan};

/// Name and values of a tensor to write.
pub(crate) type NamedValues = (String, Vec<f32>);

/// The attention tensors of one layer, without `o_proj`, which stays as it is.
pub(crate) fn assemble(
    plan: &Plan,
    layer: usize,
    factors: &Factors,
    norms: Option<LatentNorms>,
) -> Result<Vec<NamedValues>, ConvertError> {
    let rope = ConvertError::rope(layer);
    let hidden = plan.source.hidden_size;
    let prefix = attention_prefix(layer);
    let mut tensors = Vec::new();
    let mut add = |name: &str, matrix: MatRef<'_, f64>, columns: usize| {
        let (weight, bias) = split_bias(matrix, columns);
        tensors.push((format!("{prefix}.{name}.weight"), weight));
        tensors.extend(bias.map(|bias| (format!("{prefix}.{name}.bias"), bias)));
    };

    let latent_scale = norms.map_or(1.0, |norms| norms.kv.scale);
    let rope_keys = interleave_rows(factors.rope_keys.as_ref(), plan.latent.qk_rope_head_dim).map_err(&rope)?;
    let down = Scale(latent_scale) * &factors.kv.down;
    add("kv_a_proj_with_mqa", stack(down.as_ref(), rope_keys.as_ref()).as_ref(), hidden);
    add("kv_b_proj", factors.kv.kv_b().as_ref(), plan.latent.kv_lora_rank);

    match &factors.queries {
        Queries::Full(queries) => {
            let queries = with_rope_rows(plan, factors, queries.as_ref()).map_err(&rope)?;
            add("q_proj", queries.as_ref(), hidden);
        }
        Queries::LowRank { factors: query, bias } => {
            let rank = query.down.nrows();
            let scale = norms.and_then(|norms| norms.q).map_or(1.0, |norm| norm.scale);
            add("q_a_proj", (Scale(scale) * &query.down).as_ref(), hidden);
            let rows = query.up.nrows();
            let up = Mat::from_fn(rows, rank + usize::from(bias.is_some()), |i, j| match bias {
                Some(bias) if j == rank => bias[i],
                _ => query.up[(i, j)],
            });
            let up = with_rope_rows(plan, factors, up.as_ref()).map_err(&rope)?;
            add("q_b_proj", up.as_ref(), rank);
        }
    }
    if let Some(norms) = norms {
        let weight = |width: usize, weight: f64| vec![weight as f32; width];
        let name = format!("{prefix}.kv_a_layernorm.weight");
        tensors.push((name, weight(plan.latent.kv_lora_rank, norms.kv.weight)));
        if let (Some(norm), Some(rank)) = (norms.q, plan.latent.q_lora_rank) {
            tensors.push((format!("{prefix}.q_a_layernorm.weight"), weight(rank, norm.weight)));
        }
    }
    Ok(tensors)
}

/// Per head: d rows for keys without position, then d_r interleaved rotary rows, all scaled for DeepSeek's softmax.
fn with_rope_rows(
    plan: &Plan,
    factors: &Factors,
    queries: MatRef<'_, f64>,
) -> Result<Mat<f64>, transmla_rope::RopeError> {
    let (nope, rope_dim) = (plan.latent.qk_nope_head_dim, plan.latent.qk_rope_head_dim);
    let rope = interleave_rows(factors.decoupling.rope_queries(queries)?.as_ref(), rope_dim)?;
    let width = nope + rope_dim;
    let mut rows = Mat::zeros(plan.source.num_attention_heads * width, queries.ncols());
    for head in 0..plan.source.num_attention_heads {
        let (plain, rotary) = rows
            .as_mut()
            .subrows_mut(head * width, width)
            .split_at_row_mut(nope);
        { plain }.copy_from(queries.subrows(head * nope, nope));
        { rotary }.copy_from(rope.subrows(head * rope_dim, rope_dim));
    }
    rows *= Scale(plan.query_scale());
    Ok(rows)
}

fn stack(top: MatRef<'_, f64>, bottom: MatRef<'_, f64>) -> Mat<f64> {
    let mut both = Mat::zeros(top.nrows() + bottom.nrows(), top.ncols());
    both.as_mut().subrows_mut(0, top.nrows()).copy_from(top);
    both.as_mut().subrows_mut(top.nrows(), bottom.nrows()).copy_from(bottom);
    both
}
