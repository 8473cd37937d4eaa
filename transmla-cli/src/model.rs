//! Models by folder, hub id or name.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use transmla_core::hub::{is_path, model_folder};
use transmla_core::{Checkpoint, Decoder, ModelConfig, Residency};

use crate::arguments::{ComputeArguments, ModelArguments};
use crate::printer::Printer;
use crate::{embedded, environment, memory};

/// The folder of a model, unpacked or fetched if need be.
#[derive(Debug)]
pub struct ModelFolder {
    path: PathBuf,
    /// Kept for as long as the folder is used, if it is temporary.
    _unpacked: Option<TempDir>,
}

impl ModelFolder {
    /// Finds a model.
    pub fn locate(model: &str, revision: &str, printer: &Printer) -> anyhow::Result<Self> {
        if model == embedded::MODEL {
            let unpacked = embedded::unpack_model()?;
            return Ok(Self {
                path: unpacked.path().to_path_buf(),
                _unpacked: Some(unpacked),
            });
        }
        let hub = environment::hub_options(printer);
        let path = model_folder(model, revision, &hub)?;
        if is_path(model) && path != Path::new(model) {
            printer.note(format!("model: {}", path.display()));
        }
        Ok(Self { path, _unpacked: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there are weights, complete or not, or other files that are meant to be them.
    pub fn has_weights(&self) -> bool {
        let names = std::fs::read_dir(&self.path).into_iter().flatten().flatten();
        names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name.contains(".safetensors") || name.contains("pytorch_model")
        })
    }

    /// Its decoder, with weights in memory or not, whichever the allowed memory says.
    pub fn open(&self, compute: &ComputeArguments) -> anyhow::Result<Decoder> {
        let config = ModelConfig::read(&self.path)?;
        let residency = memory::residency(&config, compute.max_memory);
        self.open_as(compute, config, residency)
    }

    /// Its decoder.
    pub fn open_as(
        &self,
        compute: &ComputeArguments,
        config: ModelConfig,
        residency: Residency,
    ) -> anyhow::Result<Decoder> {
        let device = compute.device.open()?;
        let checkpoint = Checkpoint::open(&self.path)?;
        Ok(Decoder::new(config, checkpoint, &device, residency)?)
    }
}

/// Bytes of a number in the dtype that config.json names.
pub fn declared_bytes(config: &ModelConfig) -> u64 {
    let name = config.raw.get("torch_dtype").or_else(|| config.raw.get("dtype"));
    match name.and_then(|name| name.as_str()) {
        Some("float32") => 4,
        _ => 2,
    }
}

impl ModelArguments {
    /// Finds the model.
    pub fn locate(&self, printer: &Printer) -> anyhow::Result<ModelFolder> {
        ModelFolder::locate(&self.model_path, &self.revision, printer)
    }
}
