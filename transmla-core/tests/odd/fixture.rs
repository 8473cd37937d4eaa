//! Models whose weights follow from the names of their tensors, in any form that a folder can have.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use transmla_core::checkpoint::{Checkpoint, read_input_ids};
use transmla_core::model::model_tensors;
use transmla_core::{CoreError, Decoder, ModelConfig, Residency, StorageDtype};

/// A file of this test.
pub fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/odd").join(name)
}

/// A JSON file of this test.
pub fn read_json(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(file(name)).unwrap()).unwrap()
}

/// Values of a tensor, as record.py makes them.
pub fn weights(name: &str, shape: &[usize]) -> Vec<f32> {
    let mut state = 0xcbf2_9ce4_8422_2325u64;
    for byte in name.bytes() {
        state = (state ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    }
    let centre = if name.contains("norm") { 1.0 } else { 0.0 };
    let values = (0..shape.iter().product()).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        centre + ((state >> 40) as f32 / (1u32 << 24) as f32 - 0.5) * 0.6
    });
    values.collect()
}

/// A tensor as a file has it.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub shape: Vec<usize>,
    pub dtype: StorageDtype,
    pub values: Vec<f32>,
}

impl Entry {
    pub fn new(name: &str, shape: &[usize]) -> Self {
        Self {
            name: name.into(),
            shape: shape.to_vec(),
            dtype: StorageDtype::F32,
            values: weights(name, shape),
        }
    }
}

/// A model that can be made odd before it is saved.
#[derive(Debug, Clone)]
pub struct Model {
    pub config: Map<String, Value>,
    pub tensors: Vec<Entry>,
}

impl Model {
    /// A base of table.json with changes of its configuration.
    pub fn new(family: &str, changes: &Value, unset: &[&str]) -> Self {
        let mut config = read_json("table.json")["bases"][family].as_object().unwrap().clone();
        config.extend(changes.as_object().cloned().unwrap_or_default());
        config.retain(|key, _| !unset.contains(&key.as_str()));
        // A configuration that is refused needs no weights.
        let parsed = ModelConfig::from_json(config.clone()).ok();
        let specs = parsed.map(|parsed| model_tensors(&parsed)).unwrap_or_default();
        Self {
            config,
            tensors: specs.iter().map(|spec| Entry::new(&spec.name, &spec.shape)).collect(),
        }
    }

    /// The llama of table.json.
    pub fn llama() -> Self {
        Self::new("llama", &json!({}), &[])
    }

    pub fn drop_all(&mut self, part: &str) {
        self.tensors.retain(|entry| !entry.name.contains(part));
    }

    pub fn add(&mut self, name: &str, shape: &[usize]) {
        self.tensors.push(Entry::new(name, shape));
    }

    pub fn rename(mut self, rename: impl Fn(&str) -> String) -> Self {
        self.tensors
            .iter_mut()
            .for_each(|entry| entry.name = rename(&entry.name));
        self
    }

    /// A folder with config.json and model.safetensors.
    pub fn save(&self) -> Folder {
        let folder = Folder::empty();
        folder.put("config.json", Value::Object(self.config.clone()).to_string());
        folder.put("model.safetensors", safetensors(&self.tensors));
        folder
    }

    /// A folder whose shards hold the tensors of these groups, with an index of those names.
    pub fn save_shards(&self, shards: &[Vec<Entry>], index: &[(&str, usize)]) -> Folder {
        let folder = Folder::empty();
        folder.put("config.json", Value::Object(self.config.clone()).to_string());
        let name = |shard: usize| format!("model-{:05}-of-{:05}.safetensors", shard + 1, shards.len());
        for (shard, tensors) in shards.iter().enumerate() {
            folder.put(&name(shard), safetensors(tensors));
        }
        let map: Map<String, Value> = index
            .iter()
            .map(|(tensor, shard)| ((*tensor).to_owned(), json!(name(*shard))))
            .collect();
        let index = json!({"metadata": {"total_size": "unknown"}, "weight_map": map});
        folder.put("model.safetensors.index.json", index.to_string());
        folder
    }
}

/// A safetensors file.
pub fn safetensors(tensors: &[Entry]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        // Infinities included, which the writer of the crate refuses.
        match tensor.dtype {
            StorageDtype::Bf16 => data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes()[2..].to_vec())),
            _ => data.extend(tensor.values.iter().flat_map(|value| value.to_le_bytes())),
        }
        header.insert(
            tensor.name.clone(),
            json!({
                "dtype": if tensor.dtype == StorageDtype::Bf16 { "BF16" } else { "F32" }, "shape": tensor.shape,
                "data_offsets": [start, data.len()],
            }),
        );
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &data].concat()
}

/// A folder that is removed at the end of the test.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn put(&self, name: &str, contents: impl AsRef<[u8]>) {
        std::fs::write(self.path().join(name), contents).unwrap();
    }

    pub fn remove(&self, name: &str) {
        std::fs::remove_file(self.path().join(name)).unwrap();
    }

    /// The error of opening it and running it.
    #[track_caller]
    pub fn error(&self) -> String {
        logits(self.path()).expect_err("it was opened and run").to_string()
    }

    /// Logits of the recorded text at the recorded positions, and the vocabulary.
    #[track_caller]
    pub fn logits(&self) -> (Vec<f32>, usize) {
        logits(self.path()).unwrap()
    }
}

/// Logits of the recorded text at the recorded positions, one after the other, and the size of the vocabulary.
pub fn logits(folder: &Path) -> Result<(Vec<f32>, usize), CoreError> {
    let model = Decoder::open(folder, &Device::flex(), Residency::Streamed)?;
    let tokens = read_input_ids(&file("recorded.safetensors")).unwrap();
    let logits = model.logits(&tokens, None)?;
    let vocabulary = logits.dims()[2];
    let all: Vec<f32> = logits.into_data().iter::<f32>().collect();
    let rows = POSITIONS
        .iter()
        .flat_map(|row| &all[row * vocabulary..(row + 1) * vocabulary]);
    Ok((rows.copied().collect(), vocabulary))
}

/// Positions whose logits are recorded.
pub const POSITIONS: [usize; 5] = [7, 15, 23, 31, 39];

/// What transformers gave for a case, at those positions.
pub fn recorded(case: &str) -> Option<Vec<f32>> {
    let recording = Checkpoint::open_file(&file("recorded.safetensors")).unwrap();
    let shape = recording.shape(case).ok()?.to_vec();
    Some(recording.values(case, &shape).unwrap())
}

/// Largest difference of two lists of logits.
pub fn difference(one: &[f32], other: &[f32]) -> f32 {
    assert_eq!(one.len(), other.len());
    let differences = one.iter().zip(other).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, |worst, next| if next <= worst { worst } else { next })
}

/// Asserts that a message has all these parts.
#[track_caller]
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}
