//! Configurations and tokens of the models that are measured.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

/// Llama 2 7B with so many layers.
pub fn llama_2_7b(layers: usize) -> Value {
    llama(layers, 11008, 32, 32000, 1e4)
}

/// Llama 3 8B with so many layers.
pub fn llama_3_8b(layers: usize) -> Value {
    llama(layers, 14336, 8, 128_256, 5e5)
}

fn llama(layers: usize, intermediate: usize, key_heads: usize, vocabulary: usize, theta: f64) -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "attention_bias": false,
        "hidden_size": 4096,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": key_heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": theta,
        "rope_scaling": null,
        "tie_word_embeddings": false,
        "torch_dtype": "bfloat16",
    })
}

/// What becomes of Llama 2 7B with a latent of 512 + 64.
pub fn latent_7b(layers: usize) -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_act": "silu",
        "attention_bias": false,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": layers,
        "num_attention_heads": 32,
        "num_key_value_heads": 32,
        "vocab_size": 32000,
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_interleave": true,
        "rope_scaling": null,
        "tie_word_embeddings": false,
        "q_lora_rank": null,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "qk_head_dim": 192,
        "head_dim": 64,
        "v_head_dim": 128,
        // All layers are dense.
        "first_k_dense_replace": layers,
        "n_routed_experts": 2,
        "n_shared_experts": 1,
        "num_experts_per_tok": 1,
        "moe_intermediate_size": 8,
        "n_group": 1,
        "topk_group": 1,
        "norm_topk_prob": true,
        "routed_scaling_factor": 1.0,
        "torch_dtype": "bfloat16",
    })
}

/// Writes `input_ids` [rows, length] below a vocabulary as safetensors, the same each time.
///
/// # Errors
/// The file cannot be written.
pub fn write_tokens(path: &Path, rows: usize, length: usize, vocabulary: u64) -> std::io::Result<()> {
    let header =
        json!({"input_ids": {"dtype": "I64", "shape": [rows, length], "data_offsets": [0, 8 * rows * length]}});
    let header = header.to_string();
    let padded = header.len().next_multiple_of(8);
    let mut bytes = (padded as u64).to_le_bytes().to_vec();
    bytes.extend(format!("{header:padded$}").bytes());
    let mut state = 7u64;
    for _ in 0..rows * length {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        bytes.extend(((state >> 33) % vocabulary).to_le_bytes());
    }
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_keep_their_shape() {
        assert_eq!(llama_2_7b(3)["num_hidden_layers"], 3);
        assert_eq!(llama_3_8b(2)["num_key_value_heads"], 8);
        assert_eq!(latent_7b(5)["first_k_dense_replace"], 5);
        for field in ["hidden_size", "intermediate_size", "vocab_size", "num_attention_heads"] {
            assert_eq!(latent_7b(1)[field], llama_2_7b(1)[field], "{field}");
        }
    }

    #[test]
    fn tokens_are_a_tensor() {
        let file = tempfile::NamedTempFile::new().unwrap();
        write_tokens(file.path(), 3, 5, 100).unwrap();
        let bytes = fs::read(file.path()).unwrap();
        let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        assert_eq!(bytes.len(), 8 + header + 8 * 15);
        let value: Value = serde_json::from_slice(&bytes[8..8 + header]).unwrap();
        assert_eq!(value["input_ids"]["shape"], json!([3, 5]));
        let ids = bytes[8 + header..]
            .chunks_exact(8)
            .map(|id| u64::from_le_bytes(id.try_into().unwrap()));
        assert!(ids.into_iter().all(|id| id < 100));
    }
}
