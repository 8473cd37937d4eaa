//! The decoders against logits recorded from transformers (fp32, eager attention), and against themselves.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use transmla_core::checkpoint::{Checkpoint, read_input_ids};
use transmla_core::{Decoder, KvCache, Residency, TokenBatch};

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(family)
}

fn largest_difference(a: Tensor<3>, b: Tensor<3>) -> f32 {
    (a - b).abs().max().into_scalar()
}

fn check_against_recording(family: &str) {
    let folder = folder(family);
    let device = Device::flex();
    let recording = folder.join("reference.safetensors");
    let tokens = read_input_ids(&recording).unwrap();
    let file = Checkpoint::open_file(&recording).unwrap();
    let shape = file.shape("logits").unwrap().to_vec();
    let expected = file.values("logits", &shape).unwrap();
    for residency in [Residency::Streamed, Residency::Loaded] {
        let model = Decoder::open(&folder, &device, residency).unwrap();
        let logits = model.logits(&tokens, None).unwrap();
        assert_eq!(logits.dims().to_vec(), shape);
        let found: Vec<f32> = logits.into_data().iter::<f32>().collect();
        let worst = found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, f32::max);
        println!("{family}, {residency:?}: largest difference {worst:.1e}");
        assert!(worst < 5e-4, "{family}, {residency:?}: largest difference {worst}");
    }
}

#[test]
fn llama_with_multi_head_attention() {
    check_against_recording("llama2-mha");
}

#[test]
fn qwen_with_biases() {
    check_against_recording("qwen2.5");
}

#[test]
fn mistral_with_grouped_queries() {
    check_against_recording("mistral");
}

#[test]
fn mistral_with_a_sliding_window() {
    check_against_recording("mistral-window");
}

#[test]
fn llama_with_scaled_rope_and_tied_embeddings() {
    check_against_recording("llama3.2");
}

#[test]
fn mixtral_with_experts() {
    check_against_recording("mixtral");
}

#[test]
fn qwen_with_experts_and_an_mlp_in_one_layer() {
    check_against_recording("qwen3-moe");
}

#[test]
fn qwen_with_a_shared_expert() {
    check_against_recording("qwen2-moe");
}

#[test]
fn gemma_with_bounds_windows_and_four_norms() {
    check_against_recording("gemma2");
}

#[test]
fn gemma_with_normalised_heads_and_two_ropes() {
    check_against_recording("gemma3");
}

#[test]
fn smollm_with_a_layer_without_positions() {
    check_against_recording("smollm3");
}

#[test]
fn granite_with_four_multipliers() {
    check_against_recording("granite");
}

#[test]
fn olmo_with_norms_behind_and_of_all_heads() {
    check_against_recording("olmo2");
}

#[test]
fn phi_with_fused_projections_and_windows() {
    check_against_recording("phi3");
}

#[test]
fn qwen_with_normalised_heads() {
    check_against_recording("qwen3");
}

#[test]
fn mimo_beside_layers_that_are_not_run() {
    check_against_recording("mimo");
}

#[test]
fn deepseek_with_full_queries() {
    check_against_recording("deepseek-v3");
}

#[test]
fn deepseek_with_low_rank_queries() {
    check_against_recording("deepseek-v3-qlora");
}

/// Feeding a text in pieces through the cache gives the logits of feeding it at once. A latent model decodes in absorbed
/// form, so this is also absorbed = expanded.
fn check_cache(family: &str) {
    let model = Decoder::open(&folder(family), &Device::flex(), Residency::Loaded).unwrap();
    let tokens = read_input_ids(&folder(family).join("reference.safetensors")).unwrap();
    let (batch, sequence) = (tokens.batch(), tokens.sequence());
    let whole = model.logits(&tokens, None).unwrap();
    // Room for two tokens only: the cache has to grow.
    let mut cache = KvCache::new(transmla_core::LayeredModel::config(&model), 2);
    let mut start = 0;
    for length in [3, 1, 4, 1, sequence - 9] {
        let ids = (0..batch).flat_map(|row| tokens.row(row)[start..start + length].to_vec());
        let piece = TokenBatch::from_ids(ids.collect(), batch, length).unwrap();
        let logits = model.logits(&piece, Some(&mut cache)).unwrap();
        let difference = largest_difference(logits, whole.clone().narrow(1, start, length));
        assert!(
            difference < 1e-4,
            "{family}, tokens {start}..{}: {difference}",
            start + length
        );
        start += length;
    }
    assert_eq!(cache.tokens(), sequence);
    let config = transmla_core::LayeredModel::config(&model);
    // A layer with a window has forgotten what the next token does not see.
    let rows = |layer| {
        let window = config.attention_parameters(layer).window;
        window.map_or(sequence, |window| sequence.min(window - 1))
    };
    let rows: usize = (0..config.num_hidden_layers).map(rows).sum();
    assert_eq!(cache.bytes(), rows * config.attention.cache_numbers() * 4 * batch);
}

/// Biases, windows, bounds, experts and norms of heads included.
#[test]
fn cached_equals_full_for_grouped_queries() {
    for family in [
        "llama2-mha",
        "llama3.2",
        "mistral",
        "mistral-window",
        "mixtral",
        "qwen2.5",
        "qwen3",
        "mimo",
        "gemma2",
        "gemma3",
        "smollm3",
        "granite",
        "olmo2",
        "phi3",
        "qwen3-moe",
        "qwen2-moe",
    ] {
        check_cache(family);
    }
}

#[test]
fn cached_equals_full_for_latent_attention() {
    check_cache("deepseek-v3");
    check_cache("deepseek-v3-qlora");
}

/// The comparison above would notice a difference.
#[test]
fn a_recording_of_another_model_is_noticed() {
    let model = Decoder::open(&folder("mistral"), &Device::flex(), Residency::Loaded).unwrap();
    let recording = folder("mistral-window").join("reference.safetensors");
    let tokens = read_input_ids(&recording).unwrap();
    let file = Checkpoint::open_file(&recording).unwrap();
    let shape = file.shape("logits").unwrap().to_vec();
    let expected = file.values("logits", &shape).unwrap();
    let found: Vec<f32> = model.logits(&tokens, None).unwrap().into_data().iter::<f32>().collect();
    assert!(found.iter().zip(&expected).any(|(a, b)| (a - b).abs() > 0.1));
}
