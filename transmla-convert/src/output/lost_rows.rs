//! Latents whose rows half precision has taken: models of an older form that were converted to it afterwards.

use transmla_core::model::layer_prefix;
use transmla_core::{Checkpoint, CoreError, LatentConfig, ModelConfig, StorageDtype};

/// The largest number of a row that half precision holds with an error of 3 % or more: 16 of its smallest steps.
const LEAST_LARGEST: f32 = 16.0 / (1 << 24) as f32;

/// Share of a projection's rows that must be lost for the model to be; a few rows of nothing may be the original's.
const LOST_SHARE: f64 = 0.125;

/// What of a stock model's latents is lost and what to do about it, or nothing.
///
/// # Errors
/// A tensor cannot be read.
pub(crate) fn lost_rows(
    config: &ModelConfig,
    latent: &LatentConfig,
    checkpoint: &Checkpoint,
) -> Result<Option<String>, CoreError> {
    if latent.is_grouped() {
        // The older form had one latent.
        return Ok(None);
    }
    let (hidden, heads) = (config.hidden_size, config.num_attention_heads);
    for layer in 0..config.num_hidden_layers {
        let rows = latent.kv_lora_rank + latent.qk_rope_head_dim;
        let up = heads * (latent.qk_nope_head_dim + latent.v_head_dim);
        let queries = heads * latent.query_width();
        let projections = [
            Some(("kv_a_proj_with_mqa", rows, latent.kv_lora_rank, ("kv_b_proj", up))),
            latent
                .q_lora_rank
                .map(|rank| ("q_a_proj", rank, rank, ("q_b_proj", queries))),
        ];
        for (name, rows, rank, (reader, width)) in projections.into_iter().flatten() {
            let tensor = |name: &str, kind: &str| format!("{}.self_attn.{name}.{kind}", layer_prefix(layer));
            let (bias, name) = (tensor(name, "bias"), tensor(name, "weight"));
            if checkpoint.dtype(&name)?.storage() != Some(StorageDtype::F16) {
                continue;
            }
            let values = checkpoint.values(&name, &[rows, hidden])?;
            let largest = |row: &[f32]| row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let small = values.chunks_exact(hidden).take(rank).enumerate();
            let small: Vec<usize> = small
                .filter(|(_, row)| largest(row) < LEAST_LARGEST)
                .map(|(index, _)| index)
                .collect();
            if small.is_empty() {
                continue;
            }
            // Rows that nothing reads, and the one that is a bias alone, are meant to be zero.
            let bias = match checkpoint.contains(&bias) {
                true => checkpoint.values(&bias, &[rows])?,
                false => vec![0.0; rows],
            };
            let readers = checkpoint.values(&tensor(reader, "weight"), &[width, rank])?;
            let read = |index: usize| readers.iter().skip(index).step_by(rank).any(|value| *value != 0.0);
            let lost = small
                .into_iter()
                .filter(|index| bias[*index] == 0.0 && read(*index))
                .count();
            if lost as f64 > LOST_SHARE * rank as f64 {
                return Ok(Some(format!(
                    "{lost} of the {rank} latent rows of {name} are zero or nearly so in fp16: the model was converted by an \
                     older version, then saved in half precision; convert the original again"
                )));
            }
        }
    }
    Ok(None)
}
