//! What the heads of a converted model share, in words, and what devices that share its heads hold.

use std::collections::BTreeMap;

use transmla_core::{AttentionConfig, LatentConfig, ModelConfig};

/// Numbers of devices that are told of.
const DEVICES: [usize; 4] = [1, 2, 4, 8];

/// `latent 128, shared rotary key 32`, or what groups of heads have.
pub fn describe(latent: &LatentConfig) -> String {
    let (rank, rope) = (latent.kv_lora_rank, latent.qk_rope_head_dim);
    let tied = if latent.tied { " (value and key as it is)" } else { "" };
    match latent.latent_groups {
        1 => format!("latent {rank}{tied}, shared rotary key {rope}"),
        groups => format!("{groups} groups of heads with a latent {rank}{tied} and a rotary key {rope} each"),
    }
}

/// Numbers per token and layer in the cache of each of so many devices that share the heads.
pub fn numbers_by_devices(config: &ModelConfig) -> BTreeMap<usize, usize> {
    let numbers = |devices: usize| (devices, config.attention.device_numbers(devices));
    DEVICES.into_iter().map(numbers).collect()
}

/// The same for people, of models whose heads are in groups: `per device: 36 of 2 devices, 18 of 4`.
pub fn per_device(config: &ModelConfig) -> Option<String> {
    let AttentionConfig::Latent(latent) = &config.attention else {
        return None;
    };
    let parts = numbers_by_devices(config);
    let shared = parts
        .iter()
        .filter(|(devices, _)| (2..=latent.latent_groups).contains(*devices));
    let parts: Vec<String> = shared
        .map(|(devices, numbers)| format!("{numbers} on each of {devices}"))
        .collect();
    (!parts.is_empty()).then(|| format!("{} devices", parts.join(", ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn config(groups: usize, tied: bool) -> ModelConfig {
        let config = json!({
            "model_type": "llamamla", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 9,
            "num_attention_heads": 8, "kv_lora_rank": 6, "qk_rope_head_dim": 2, "qk_nope_head_dim": 6, "v_head_dim": 6,
            "latent_groups": groups, "tied_latent": tied,
        });
        ModelConfig::from_json(config.as_object().unwrap().clone()).unwrap()
    }

    #[test]
    fn groups_are_told_of_where_there_are_any() {
        let told = |config: &ModelConfig| match &config.attention {
            AttentionConfig::Latent(latent) => describe(latent),
            AttentionConfig::Grouped(_) => unreachable!("latent attention"),
        };
        assert_eq!(told(&config(1, false)), "latent 6, shared rotary key 2");
        assert_eq!(per_device(&config(1, false)), None);
        let four = config(4, true);
        assert_eq!(
            told(&four),
            "4 groups of heads with a latent 6 (value and key as it is) and a rotary key 2 each"
        );
        assert_eq!(
            numbers_by_devices(&four),
            BTreeMap::from([(1, 32), (2, 16), (4, 8), (8, 8)])
        );
        assert_eq!(per_device(&four).unwrap(), "16 on each of 2, 8 on each of 4 devices");
    }
}
