//! Weights that do not fit the configuration, or cannot be computed with.

use serde_json::json;
use transmla_checkpoint::Checkpoint;

use crate::fixture::{Model, assert_says, read_everything};

const K: &str = "model.layers.1.self_attn.k_proj.weight";

#[test]
fn a_wrong_shape() {
    let mut model = Model::valid();
    model.tensor(K).shape = vec![8, 4];
    assert_says(&model.error(), &[K, "[4, 8]", "[8, 4]", "config.json"]);
}

#[test]
fn a_missing_tensor() {
    for name in [K, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"] {
        let mut model = Model::valid();
        model.remove(name);
        assert_says(&model.error(), &[name, "not in"]);
    }
}

#[test]
fn a_missing_layer() {
    let mut model = Model::valid();
    model.config.insert("num_hidden_layers".into(), json!(3));
    assert_says(&model.error(), &["model.layers.2.", "not in"]);
}

#[test]
fn a_layer_too_many() {
    let mut model = Model::valid();
    model.config.insert("num_hidden_layers".into(), json!(1));
    assert_says(&model.error(), &["model.layers.1.", "does not have"]);
}

#[test]
fn tensors_that_the_decoder_would_ignore() {
    for (name, shape) in [
        ("model.layers.0.self_attn.q_norm.weight", &[4][..]),
        ("model.layers.0.self_attn.q_proj.bias", &[8]),
        ("model.layers.0.mlp.up_proj.bias", &[12]),
        ("model.layers.0.mlp.gate_proj.weight_scale_inv", &[1]),
        ("model.layers.0.pre_feedforward_layernorm.weight", &[8]),
        ("lm_head.bias", &[16]),
    ] {
        let mut model = Model::valid();
        model.add(name, shape);
        assert_says(&model.error(), &["unsupported", name, "llama"]);
    }
}

#[test]
fn attention_sinks_are_named() {
    let mut model = Model::valid();
    model.add("model.layers.1.self_attn.sinks", &[2]);
    assert_says(&model.error(), &["unsupported", "attention sinks", "layers.1"]);
}

#[test]
fn tensors_that_follow_from_others_are_no_obstacle() {
    let mut model = Model::valid();
    model.add("model.layers.0.self_attn.rotary_emb.inv_freq", &[2]);
    read_everything(model.save().path()).unwrap();
}

#[test]
fn not_a_number_names_tensor_and_element() {
    for (value, name) in [(f32::NAN, "NaN"), (f32::INFINITY, "inf"), (f32::NEG_INFINITY, "-inf")] {
        for tensor in [K, "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"] {
            let mut model = Model::valid();
            model.tensor(tensor).bytes[5 * 4..6 * 4].copy_from_slice(&value.to_le_bytes());
            assert_says(&model.error(), &[tensor, name, "element 5"]);
        }
    }
}

#[test]
fn not_a_number_in_half_precision() {
    for (dtype, nan) in [("F16", 0x7e00u16), ("BF16", 0x7fc0)] {
        let mut model = Model::valid();
        let tensor = model.tensor(K);
        tensor.dtype = dtype;
        tensor.bytes = vec![0; tensor.bytes.len() / 2];
        tensor.bytes[2 * 31..].copy_from_slice(&nan.to_le_bytes());
        assert_says(&model.error(), &[K, "NaN", "element 31"]);
    }
}

#[test]
fn not_a_number_in_a_later_piece() {
    let mut model = Model::valid();
    model.tensor(K).bytes[30 * 4..31 * 4].copy_from_slice(&f32::NAN.to_le_bytes());
    let folder = model.save();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let mut seen = 0;
    let result = checkpoint.pieces(K, 7, &mut |piece| {
        seen += piece.len();
        Ok(())
    });
    assert_says(&result.unwrap_err().to_string(), &[K, "element 30"]);
    assert_eq!(seen, 28);
}

#[test]
fn a_row_beyond_the_matrix() {
    let folder = Model::valid().save();
    let checkpoint = Checkpoint::open(folder.path()).unwrap();
    let mut out = Vec::new();
    let rows = [15, 16].into_iter();
    let error = checkpoint.rows("model.embed_tokens.weight", [16, 8], rows, &mut out);
    assert_says(&error.unwrap_err().to_string(), &["16"]);
}

#[test]
fn number_formats_that_cannot_be_computed_with() {
    for (dtype, bytes) in [
        ("F8_E4M3", 1),
        ("F8_E5M2", 1),
        ("I8", 1),
        ("U8", 1),
        ("I32", 4),
        ("F64", 8),
    ] {
        let mut model = Model::valid();
        let tensor = model.tensor(K);
        tensor.dtype = dtype;
        tensor.bytes = vec![0; 32 * bytes];
        assert_says(&model.error(), &[K, dtype, "F32, F16, BF16"]);
    }
}

#[test]
fn an_empty_tensor() {
    let mut model = Model::valid();
    let tensor = model.tensor("model.norm.weight");
    tensor.shape = vec![0];
    tensor.bytes.clear();
    assert_says(&model.error(), &["model.norm.weight", "[8]", "[0]"]);
}
