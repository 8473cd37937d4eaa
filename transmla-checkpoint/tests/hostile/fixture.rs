//! A tiny valid model, to be damaged.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value, json};
use tempfile::TempDir;
use transmla_checkpoint::layout::{check_headers, model_tensors};
use transmla_checkpoint::{Checkpoint, CheckpointError, ModelConfig};

/// A tensor as a file has it: nothing stops the parts from contradicting each other.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: String,
    pub dtype: &'static str,
    pub shape: Vec<u64>,
    pub bytes: Vec<u8>,
}

/// A model in memory.
#[derive(Debug, Clone)]
pub struct Model {
    pub config: Map<String, Value>,
    pub tensors: Vec<Entry>,
}

impl Model {
    /// Llama with 2 layers, 2 query heads over 1 key head, hidden size 8, 16 token ids, F32.
    pub fn valid() -> Self {
        let config = json!({
            "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2,
            "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": false,
        });
        let config = config.as_object().unwrap().clone();
        let parsed = ModelConfig::from_json(config.clone()).unwrap();
        let tensors = model_tensors(&parsed);
        let entry = |(index, spec): (usize, transmla_checkpoint::TensorSpec)| {
            let values = (0..spec.elements()).map(|i| ((i * 7 + index * 3) % 11) as f32 / 11.0 - 0.4);
            Entry {
                name: spec.name,
                dtype: "F32",
                shape: spec.shape.iter().map(|n| *n as u64).collect(),
                bytes: values.flat_map(f32::to_le_bytes).collect(),
            }
        };
        Self {
            config,
            tensors: tensors.into_iter().enumerate().map(entry).collect(),
        }
    }

    pub fn tensor(&mut self, name: &str) -> &mut Entry {
        self.tensors.iter_mut().find(|t| t.name == name).unwrap()
    }

    pub fn remove(&mut self, name: &str) -> Entry {
        let index = self.tensors.iter().position(|t| t.name == name).unwrap();
        self.tensors.remove(index)
    }

    /// Adds a tensor of ones.
    pub fn add(&mut self, name: &str, shape: &[u64]) {
        let elements: u64 = shape.iter().product();
        self.tensors.push(Entry {
            name: name.into(),
            dtype: "F32",
            shape: shape.to_vec(),
            bytes: 1f32.to_le_bytes().repeat(elements as usize),
        });
    }

    /// A folder with `config.json` and one `model.safetensors`.
    pub fn save(&self) -> Folder {
        let folder = Folder::empty();
        folder.put("config.json", Value::Object(self.config.clone()).to_string());
        folder.put("model.safetensors", safetensors(&self.tensors));
        folder
    }

    /// The error of opening the folder of [`Self::save`].
    pub fn error(&self) -> String {
        self.save().error()
    }
}

/// A safetensors file of these tensors.
pub fn safetensors(tensors: &[Entry]) -> Vec<u8> {
    let mut header = Map::new();
    let mut data = Vec::new();
    for tensor in tensors {
        let start = data.len();
        data.extend_from_slice(&tensor.bytes);
        header.insert(
            tensor.name.clone(),
            json!({"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": [start, data.len()]}),
        );
    }
    with_header(&Value::Object(header).to_string(), &data)
}

/// A file of a header as it is given and data.
pub fn with_header(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

/// A model folder that is removed at the end of the test.
#[derive(Debug)]
pub struct Folder(TempDir);

impl Folder {
    pub fn empty() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.path().join(name)
    }

    pub fn put(&self, name: &str, contents: impl AsRef<[u8]>) {
        fs::write(self.file(name), contents).unwrap();
    }

    /// The error of [`read_everything`].
    pub fn error(&self) -> String {
        read_everything(self.path())
            .expect_err("it was opened and read")
            .to_string()
    }
}

/// Opens a model and reads all of it: every tensor that its configuration implies.
pub fn read_everything(folder: &Path) -> Result<(), CheckpointError> {
    let config = ModelConfig::read(folder)?;
    let checkpoint = Checkpoint::open(folder)?;
    check_headers(&config, &checkpoint)?;
    for spec in model_tensors(&config) {
        checkpoint.values(&spec.name, &spec.shape)?;
    }
    Ok(())
}

/// Asserts that a message has all these parts.
#[track_caller]
pub fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "expected {part:?} in: {message}");
    }
}
