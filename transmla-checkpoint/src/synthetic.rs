//! Random weights in the shape of any supported model, for measurements that need no sense.

use std::path::{Path, PathBuf};

use crate::checkpoint::dtype::StorageDtype;
use crate::checkpoint::writer::{CheckpointWriter, TensorSpec};
use crate::config::family::NormWeight;
use crate::config::model::ModelConfig;
use crate::config::raw::RawConfig;
use crate::error::CheckpointError;
use crate::layout::tensors::{carried_tensors, model_tensors};

/// Numbers made at once.
const PIECE: usize = 1 << 20;

/// Writes a model folder of random weights for a config.json; the same seed gives the same model.
///
/// Matrices have the variance of one over their width, so that activations keep their size; norms and biases are near
/// where training leaves them. Gives the folder.
///
/// # Errors
/// The configuration is not supported, the target exists, or it cannot be written.
pub fn write_random_model(
    config: impl Into<RawConfig>,
    target: &Path,
    dtype: StorageDtype,
    max_shard_bytes: u64,
    seed: u64,
) -> Result<PathBuf, CheckpointError> {
    let raw = config.into();
    let text = raw.to_pretty_json();
    let config = ModelConfig::from_json(raw)?;
    let mut tensors = model_tensors(&config);
    tensors.extend(carried_tensors(&config));
    let mut writer = CheckpointWriter::create(target, &tensors, dtype, max_shard_bytes, false)?;
    let mut values = Vec::with_capacity(PIECE);
    for spec in &tensors {
        let (centre, spread) = distribution(spec, config.family.norm_weight);
        let mut state = spec.name.bytes().fold(seed, |state, byte| mix(state ^ u64::from(byte)));
        let mut left = spec.elements();
        while left > 0 {
            values.clear();
            values.extend((0..left.min(PIECE)).map(|_| {
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let unit = (mix(state) >> 40) as f32 / (1u64 << 23) as f32 - 1.0;
                centre + spread * unit
            }));
            writer.append(&spec.name, &values)?;
            left -= values.len();
        }
    }
    writer.write_file("config.json", text.as_bytes())?;
    writer.commit()
}

/// Centre and largest deviation of a tensor's numbers, which are spread evenly.
fn distribution(spec: &TensorSpec, norms: NormWeight) -> (f32, f32) {
    match &spec.shape[..] {
        [_, columns] => (0.0, (3.0 / *columns as f32).sqrt()),
        _ if spec.name.ends_with(".bias") || norms == NormWeight::OnePlus => (0.0, 0.1),
        _ => (1.0, 0.1),
    }
}

/// The output function of splitmix64.
fn mix(state: u64) -> u64 {
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::reader::Checkpoint;
    use serde_json::json;

    #[test]
    fn the_same_seed_gives_the_same_model_in_any_number_of_shards() {
        let config = json!({
            "model_type": "mimo", "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 100, "num_nextn_predict_layers": 1,
        });
        let config = config.as_object().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, shard, seed| {
            let target = folder.path().join(name);
            let dtype = StorageDtype::Bf16;
            let target = write_random_model(config.clone(), &target, dtype, shard, seed).unwrap();
            Checkpoint::open(&target).unwrap()
        };
        let (one, many, other) = (
            write("one", 1 << 30, 3),
            write("many", 9_000, 3),
            write("other", 1 << 30, 4),
        );
        assert!(std::fs::read_dir(many.folder()).unwrap().count() > 5);
        crate::layout::check_headers(&ModelConfig::read(one.folder()).unwrap(), &one).unwrap();
        let bytes = |checkpoint: &Checkpoint, name: &str| {
            let mut bytes = Vec::new();
            let read = checkpoint.bytes(name, &mut |piece| {
                bytes.extend_from_slice(piece);
                Ok(())
            });
            read.unwrap();
            bytes
        };
        for name in one.names() {
            assert_eq!(bytes(&one, name), bytes(&many, name), "{name}");
            assert_ne!(bytes(&one, name), bytes(&other, name), "{name}");
        }
        // However they are divided.
        assert_eq!(one.fingerprint().unwrap(), many.fingerprint().unwrap());
        assert_ne!(one.fingerprint().unwrap(), other.fingerprint().unwrap());
        let values = one.values("model.layers.0.mlp.up_proj.weight", &[96, 64]).unwrap();
        let variance = values.iter().map(|v| v * v).sum::<f32>() / values.len() as f32;
        assert!((variance * 64.0 - 1.0).abs() < 0.05, "{variance}");
        let norm = one.values("model.norm.weight", &[64]).unwrap();
        assert!(norm.iter().all(|weight| (weight - 1.0).abs() < 0.11));
    }
}
