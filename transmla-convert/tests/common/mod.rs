//! A small random model as a folder, and its conversion.

use std::path::Path;

use serde_json::{Value, json};
use transmla_convert::{Plan, Request};
use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::{carried_tensors, model_tensors};
use transmla_core::{Checkpoint, Decoder, ModelConfig, StorageDtype, TensorSpec, TokenBatch};

/// A conversion to a place where nothing is, without evaluation.
pub fn request<'a>(
    plan: &'a Plan,
    source: &'a Decoder,
    calibration: &'a TokenBatch,
    save_path: &'a Path,
) -> Request<'a> {
    Request {
        plan,
        source,
        calibration,
        questions: None,
        evaluation: None,
        save_path,
        replace: false,
        extra_files: &[],
        card: None,
    }
}

/// A random model of 3 query heads 8 wide over `key_heads` key heads, with biases or not.
#[allow(dead_code, reason = "not every test file has a use for it")]
pub fn write_random_model(folder: &Path, key_heads: usize, bias: bool, tied: bool) {
    let changes = json!({
        "model_type": if bias { "qwen2" } else { "llama" }, "num_key_value_heads": key_heads,
        "tie_word_embeddings": tied,
    });
    write_random_variant(folder, &changes);
}

/// A random llama of 3 query heads 8 wide over one key head, with other keys in its config.json.
pub fn write_random_variant(folder: &Path, changes: &Value) {
    let mut config = json!({
        "model_type": "llama", "hidden_size": 24, "intermediate_size": 40, "num_hidden_layers": 2,
        "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 50, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "tie_word_embeddings": false,
    });
    let raw = config.as_object_mut().unwrap();
    raw.extend(changes.as_object().unwrap().clone());
    let parsed = ModelConfig::from_json(raw.clone()).unwrap();
    let mut specs = model_tensors(&parsed);
    specs.extend(carried_tensors(&parsed));
    let mut writer = CheckpointWriter::create(folder, &specs, StorageDtype::F32, 4_000, false).unwrap();
    let mut state = 99u64;
    for spec in &specs {
        let centre = if spec.name.contains("norm") { 1.0 } else { 0.0 };
        let values = (0..spec.elements()).map(|_| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            centre + ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 0.6
        });
        writer.write(&spec.name, &values.collect::<Vec<_>>()).unwrap();
    }
    writer.write_file("config.json", config.to_string().as_bytes()).unwrap();
    writer.commit().unwrap();
}

/// Writes every value of the tensors whose name ends so anew.
#[allow(dead_code, reason = "not every test file has a use for it")]
pub fn change_tensor(model: &Path, name: &str, change: impl Fn(f32) -> f32) {
    rewrite(model, |found, values| {
        if found.ends_with(name) {
            values.iter_mut().for_each(|value| *value = change(*value));
        }
    });
}

/// Writes every tensor anew, by its name.
#[allow(dead_code, reason = "not every test file has a use for it")]
pub fn rewrite(model: &Path, change: impl Fn(&str, &mut [f32])) {
    let checkpoint = Checkpoint::open(model).unwrap();
    let specs: Vec<TensorSpec> = checkpoint
        .names()
        .map(|name| TensorSpec::new(name, checkpoint.shape(name).unwrap()))
        .collect();
    let config = std::fs::read(model.join("config.json")).unwrap();
    let mut writer = CheckpointWriter::create(model, &specs, StorageDtype::F32, 4_000, true).unwrap();
    for spec in &specs {
        let mut values = checkpoint.values(&spec.name, &spec.shape).unwrap();
        change(&spec.name, &mut values);
        writer.write(&spec.name, &values).unwrap();
    }
    writer.write_file("config.json", &config).unwrap();
    writer.commit().unwrap();
}
