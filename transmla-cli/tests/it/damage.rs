//! Ways in which a checkpoint can be damaged.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::SafeTensors;
use safetensors::tensor::TensorView;

/// Splits `model.safetensors` into two shards with an index.
pub fn split_into_shards(model: &Path) {
    let single = model.join("model.safetensors");
    let bytes = std::fs::read(&single).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut weight_map = BTreeMap::new();
    let mut views: Vec<(String, TensorView<'_>)> = tensors.tensors();
    views.sort_by(|a, b| a.0.cmp(&b.0));
    let half = views.len() / 2;
    for (index, part) in views.chunks(half + 1).enumerate() {
        let name = shard(index);
        weight_map.extend(part.iter().map(|(tensor, _)| (tensor.clone(), name.clone())));
        let data = safetensors::serialize(part.iter().map(|(n, v)| (n, v)), None).unwrap();
        std::fs::write(model.join(name), data).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": weight_map});
    std::fs::write(model.join("model.safetensors.index.json"), index.to_string()).unwrap();
    std::fs::remove_file(single).unwrap();
}

/// Name of one of two shards.
pub fn shard(index: usize) -> String {
    format!("model-{:05}-of-00002.safetensors", index + 1)
}

/// Overwrites one element of an f32 tensor.
pub fn overwrite(model: &Path, tensor: &str, element: usize, value: f32) {
    let path = model.join("model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let (header, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let start = header + 8 + metadata.info(tensor).unwrap().data_offsets.0 + 4 * element;
    bytes[start..start + 4].copy_from_slice(&value.to_le_bytes());
    std::fs::write(path, bytes).unwrap();
}

/// Cuts bytes off the end of a file.
pub fn truncate(file: &Path, bytes: u64) {
    let length = std::fs::metadata(file).unwrap().len();
    std::fs::File::options()
        .write(true)
        .open(file)
        .unwrap()
        .set_len(length - bytes)
        .unwrap();
}
