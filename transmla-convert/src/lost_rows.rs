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
    let hidden = config.hidden_size;
    for layer in 0..config.num_hidden_layers {
        let rows = latent.kv_lora_rank + latent.qk_rope_head_dim;
        let projections = [
            Some(("kv_a_proj_with_mqa", rows, latent.kv_lora_rank)),
            latent.q_lora_rank.map(|rank| ("q_a_proj", rank, rank)),
        ];
        for (name, rows, rank) in projections.into_iter().flatten() {
            let name = format!("{}.self_attn.{name}.weight", layer_prefix(layer));
            if StorageDtype::from_safetensors(checkpoint.dtype(&name)?) != Some(StorageDtype::F16) {
                continue;
            }
            let values = checkpoint.values(&name, &[rows, hidden])?;
            let largest = |row: &[f32]| row.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
            let lost = values
                .chunks_exact(hidden)
                .take(rank)
                .filter(|row| largest(*row) < LEAST_LARGEST);
            let lost = lost.count();
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
