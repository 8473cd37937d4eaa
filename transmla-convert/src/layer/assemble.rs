//! From factors to a latent attention, and from that to the tensors of a DeepSeek checkpoint.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, MatRef, Scale};
use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::config::{LatentStyle, RopeLayout};
use transmla_core::model::attention::{KeyScale, LatentAttention, NormedQueries, QueryProjection};
use transmla_core::model::{Linear, RmsNorm, layer_prefix};
use transmla_core::{Checkpoint, CoreError, host_values};
use transmla_rope::Decoupling;

use crate::layer::constant_entry::{with_stock_biases, with_zero_biases};
use crate::layer::factors::{Factors, Queries, attention_prefix};
use crate::layer::latent_norm::{LatentNorm, LatentNorms};
use crate::layer::weights::to_linear;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// Name and values of a tensor to write.
pub(crate) type NamedValues = (String, Vec<f32>);

/// The attention that factors make, on a device: half-split, without latent norms, with the source's `q_norm`, if it has
/// one, and `o_proj`, and with the scale of the keys' norm, if it is kept.
pub(crate) fn attention(
    plan: &Plan,
    layer: usize,
    factors: &Factors<'_>,
    q_norm: Option<&RmsNorm>,
    key_scale: Option<KeyScale>,
    output: Linear,
    device: &Device,
) -> Result<LatentAttention, ConvertError> {
    let hidden = plan.source().hidden_size;
    let q_heads = q_norm.map(|norm| {
        let scale = plan.query_scale(layer);
        normed_queries(norm, &factors.decoupling, [scale, plan.rope_share(layer)], device)
    });
    let with_rope = |queries: MatRef<'_, f64>| match &q_heads {
        // Rotary queries are made of normalised ones.
        Some(_) => Ok(queries.to_owned()),
        None => with_rope_rows(plan, layer, factors, queries).map_err(ConvertError::rope(layer)),
    };
    let q = match factors.queries {
        Queries::Full(queries) => {
            QueryProjection::Plain(to_linear(with_rope(queries.as_ref())?.as_ref(), hidden, device))
        }
        Queries::LowRank { factors: query, bias } => {
            let rank = query.down.nrows();
            let up = Mat::from_fn(
                query.up.nrows(),
                rank + usize::from(bias.is_some()),
                |i, j| match bias {
                    Some(bias) if j == rank => bias[i],
                    _ => query.up[(i, j)],
                },
            );
            QueryProjection::Lora {
                down: to_linear(query.down.as_ref(), hidden, device),
                norm: None,
                up: to_linear(with_rope(up.as_ref())?.as_ref(), rank, device),
            }
        }
    };
    let down = stack(factors.kv.down.as_ref(), factors.rope_keys.as_ref());
    Ok(LatentAttention {
        q,
        q_heads,
        key_scale,
        kv_down: to_linear(down.as_ref(), hidden, device),
        kv_norm: None,
        latent_map: None,
        kv_up: Some(to_linear(
            factors.kv.kv_b().as_ref(),
            plan.latent().kv_lora_rank,
            device,
        )),
        o: output,
        heads: plan.source().num_attention_heads,
        shape: plan.latent().clone(),
        parameters: plan.converted().attention_parameters(layer),
    })
}

/// The source's query norm times a number, and the rotary queries of a split after it, times another.
pub(crate) fn normed_queries(
    norm: &RmsNorm,
    decoupling: &Decoupling,
    [scale, share]: [f64; 2],
    device: &Device,
) -> NormedQueries {
    let shape = [
        decoupling.shape.query_heads,
        decoupling.rope_dim(),
        decoupling.shape.head_dim,
    ];
    let mut values = Vec::with_capacity(shape.iter().product());
    for map in &decoupling.query_rope {
        for i in 0..map.nrows() {
            values.extend((0..map.ncols()).map(|j| (map[(i, j)] * share) as f32));
        }
    }
    NormedQueries {
        norm: RmsNorm::new(norm.weight.clone().mul_scalar(scale), norm.eps),
        rope: Tensor::from_data(TensorData::new(values, shape), device),
    }
}

/// Puts norms that are not the identity on an attention.
pub(crate) fn with_norms(mut attention: LatentAttention, norms: &LatentNorms, eps: f64) -> LatentAttention {
    let device = attention.o.weight.device();
    let norm = |weight: &[f64]| {
        let values: Vec<f32> = weight.iter().map(|value| *value as f32).collect();
        RmsNorm::new(Tensor::from_data(TensorData::new(values, [weight.len()]), &device), eps)
    };
    attention.kv_norm = Some(norm(&norms.kv.weight));
    if let (QueryProjection::Lora { norm: slot, .. }, Some(q)) = (&mut attention.q, &norms.q) {
        *slot = Some(norm(&q.weight));
    }
    attention
}

/// The attention in the form that a plan writes: with biases where stock code has them, if it is to have any.
pub(crate) fn written(plan: &Plan, attention: LatentAttention) -> LatentAttention {
    match (plan.style(), plan.latent().q_lora_rank) {
        (LatentStyle::DeepseekV3, Some(rank)) if plan.grouped().qkv_bias => with_stock_biases(attention, rank),
        (LatentStyle::DeepseekV3, _) if plan.grouped().output_bias => with_zero_biases(attention),
        _ => attention,
    }
}

/// The projections of the normalised residual stream.
const READ_THE_INPUT: [&str; 4] = ["q_proj", "q_a_proj", "k_proj", "kv_a_proj_with_mqa"];

/// Writes a layer's attention as [`tensors`] has it, and the norm in front of it, if there is one, whose scale goes with it.
pub(crate) fn write(
    writer: &mut CheckpointWriter,
    source: &Checkpoint,
    layer: usize,
    attention: &LatentAttention,
    norms: Option<&LatentNorms>,
    output_scale: f64,
) -> Result<(), CoreError> {
    for (name, values) in tensors(layer, attention, norms, output_scale)? {
        writer.write(&name, &values)?;
    }
    let (norm, scale) = (input_norm(layer), norms.map_or(1.0, |norms| norms.input_scale));
    if source.contains(&norm) {
        writer.copy(source, &norm, scale as f32)?;
    }
    Ok(())
}

/// The norm in front of a layer's attention.
pub(crate) fn input_norm(layer: usize) -> String {
    format!("{}.input_layernorm.weight", layer_prefix(layer))
}

/// The attention's tensors as a DeepSeek checkpoint has them: rotary rows interleaved, latents scaled for their norms, and
/// the output times `output_scale`.
pub(crate) fn tensors(
    layer: usize,
    attention: &LatentAttention,
    norms: Option<&LatentNorms>,
    output_scale: f64,
) -> Result<Vec<NamedValues>, CoreError> {
    let prefix = attention_prefix(layer);
    let (rank, nope, rope) = (
        attention.shape.kv_lora_rank,
        attention.shape.qk_nope_head_dim,
        attention.shape.qk_rope_head_dim,
    );
    let input = norms.map_or(1.0, |norms| norms.input_scale.recip());
    let mut out = Vec::new();
    let mut add = |name: &str, linear: &Linear, order: Option<Rows>, scale: &dyn Fn(usize) -> f64, behind: &[f64]| {
        let [rows, columns] = linear.weight.dims();
        let weight = host_values(linear.weight.clone().reshape([rows * columns]))?;
        let input = if READ_THE_INPUT.contains(&name) { input } else { 1.0 };
        let weight = reorder(&weight, columns, order, &|row| input * scale(row), behind);
        out.push((format!("{prefix}.{name}.weight"), weight));
        if let Some(bias) = &linear.bias {
            let bias = host_values(bias.clone())?;
            out.push((format!("{prefix}.{name}.bias"), reorder(&bias, 1, order, scale, &[])));
        }
        Ok::<(), CoreError>(())
    };
    let heads = attention.q_heads.is_none().then_some(Rows { plain: nope, rope });
    match &attention.q {
        QueryProjection::Plain(q) => add("q_proj", q, heads, &|_| 1.0, &[])?,
        QueryProjection::Lora { down, up, .. } => {
            let norm = norms.and_then(|norms| norms.q.as_ref());
            add(
                "q_a_proj",
                down,
                None,
                &|row| norm.map_or(1.0, |norm| norm.rows[row]),
                &[],
            )?;
            add(
                "q_b_proj",
                up,
                heads,
                &|_| 1.0,
                norm.map_or(&[][..], |norm| &norm.columns[..]),
            )?;
        }
    }
    if let Some(NormedQueries { norm, rope: map }) = &attention.q_heads {
        let [heads, rope, nope] = map.dims();
        let map = Linear::new(map.clone().reshape([heads * rope, nope]));
        add("q_rope_proj", &map, Some(Rows { plain: 0, rope }), &|_| 1.0, &[])?;
        add(
            "q_norm",
            &Linear::new(norm.weight.clone().unsqueeze()),
            None,
            &|_| 1.0,
            &[],
        )?;
    }
    if let Some(KeyScale { k, gain, .. }) = &attention.key_scale {
        add("k_proj", k, None, &|_| 1.0, &[])?;
        add("k_norm", &Linear::new(gain.clone().unsqueeze()), None, &|_| 1.0, &[])?;
    }
    let norm = norms.map(|norms| &norms.kv);
    // Behind the latent's rows are the rotary ones, which have no norm.
    let latent = |row: usize| norm.and_then(|norm| norm.rows.get(row)).copied().unwrap_or(1.0);
    let order = Some(Rows { plain: rank, rope });
    add("kv_a_proj_with_mqa", &attention.kv_down, order, &latent, &[])?;
    let columns = norm.map_or(&[][..], |norm| &norm.columns[..]);
    if let Some(up) = &attention.kv_up {
        add("kv_b_proj", up, None, &|_| 1.0, columns)?;
    }
    add("o_proj", &attention.o, None, &|_| output_scale, &[])?;
    if let Some(norms) = norms {
        let mut norm = |name: &str, norm: &LatentNorm| {
            let weight = norm.weight.iter().map(|value| *value as f32).collect();
            out.push((format!("{prefix}.{name}.weight"), weight));
        };
        norm("kv_a_layernorm", &norms.kv);
        if let Some(q) = &norms.q {
            norm("q_a_layernorm", q);
        }
    }
    Ok(out)
}

/// Rows in blocks of `plain` rows followed by `rope` rotary ones.
#[derive(Debug, Clone, Copy)]
struct Rows {
    plain: usize,
    rope: usize,
}

impl Rows {
    /// Where row `row` of the interleaved order comes from in the half-split one.
    fn source(self, row: usize) -> usize {
        let block = self.plain + self.rope;
        match (row % block).checked_sub(self.plain) {
            None => row,
            Some(j) => row - j + RopeLayout::Interleaved.half_split_index(j, self.rope),
        }
    }
}

/// Rows in another order, each times `scale` of its new place, and columns times `behind`, unless that is empty.
fn reorder(
    values: &[f32],
    columns: usize,
    order: Option<Rows>,
    scale: &dyn Fn(usize) -> f64,
    behind: &[f64],
) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for row in 0..values.len() / columns {
        let source = order.map_or(row, |order| order.source(row));
        let factor = scale(row);
        let line = &values[source * columns..(source + 1) * columns];
        let scaled = |value: &f32, factor: f64| (f64::from(*value) * factor) as f32;
        match (behind.is_empty(), factor == 1.0) {
            (true, true) => out.extend_from_slice(line),
            (true, false) => out.extend(line.iter().map(|value| scaled(value, factor))),
            (false, _) => out.extend(
                line.iter()
                    .zip(behind)
                    .map(|(value, column)| scaled(value, factor * column)),
            ),
        }
    }
    out
}

/// Per head: d rows for keys without position, then d_r half-split rotary rows, all scaled for DeepSeek's softmax.
fn with_rope_rows(
    plan: &Plan,
    layer: usize,
    factors: &Factors<'_>,
    queries: MatRef<'_, f64>,
) -> Result<Mat<f64>, transmla_rope::RopeError> {
    let (nope, rope_dim) = (plan.latent().qk_nope_head_dim, plan.latent().qk_rope_head_dim);
    let rope = factors.decoupling.rope_queries(queries)?;
    let width = nope + rope_dim;
    let mut rows = Mat::zeros(plan.source().num_attention_heads * width, queries.ncols());
    for head in 0..plan.source().num_attention_heads {
        let block = rows.as_mut().subrows_mut(head * width, width);
        let (mut plain, mut rotary) = block.split_at_row_mut(nope);
        plain.copy_from(queries.subrows(head * nope, nope));
        rotary.copy_from(rope.subrows(head * rope_dim, rope_dim));
        rotary *= Scale(plan.rope_share(layer));
    }
    rows *= Scale(plan.query_scale(layer));
    Ok(rows)
}

fn stack(top: MatRef<'_, f64>, bottom: MatRef<'_, f64>) -> Mat<f64> {
    let mut both = Mat::zeros(top.nrows() + bottom.nrows(), top.ncols());
    both.as_mut().subrows_mut(0, top.nrows()).copy_from(top);
    both.as_mut().subrows_mut(top.nrows(), bottom.nrows()).copy_from(bottom);
    both
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotary_rows_of_each_block_are_interleaved() {
        let rope = 6;
        let expected = [0, 3, 1, 4, 2, 5];
        let values: Vec<f32> = (0..2 * (3 + rope)).map(|i| i as f32).collect();
        let found = reorder(&values, 1, Some(Rows { plain: 3, rope }), &|_| 1.0, &[]);
        for block in [0, 9] {
            assert_eq!(found[block..block + 3], values[block..block + 3]);
            for j in 0..rope {
                assert_eq!(found[block + 3 + j], (block + 3 + expected[j]) as f32);
            }
        }
    }
}
