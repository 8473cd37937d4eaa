//! Layers that were refined, kept on disk until their model is complete, so that a run that was ended can go on.
//!
//! Refinement is what takes the time of a conversion. Beside the target folder `NAME` there is, until the model stands there,
//! `.NAME.layers` with one small checkpoint for each refined layer, in f32. Whether a layer is still of use is told by a
//! fingerprint of the plan, the text, this version, and the layers before it.

use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::attention::{GroupedAttention, LatentAttention};
use transmla_core::{Checkpoint, CoreError, StorageDtype, TokenBatch, host_values};

use crate::{ConvertError, LayerReport, Plan, Request, assemble};

/// The kept layers of one conversion; of use only in order, from the first one on.
pub(crate) struct KeptLayers {
    folder: Option<PathBuf>,
    fingerprint: u64,
    /// Whether all layers so far were found.
    unbroken: bool,
}

/// What is said of a kept layer. Numbers are told by their bits: decimal digits may be read back as a neighbour.
#[derive(Serialize, Deserialize)]
struct Label {
    fingerprint: String,
    kept_energy: u64,
    key_error: Option<u64>,
    output_error: Option<u64>,
}

const LABEL: &str = "layer.json";

impl KeptLayers {
    /// Those of a conversion; none are kept where nothing is refined, for a closed form is found again in no time.
    pub fn of(request: &Request<'_>) -> Self {
        let refined = request.plan.options.refine > 0;
        Self {
            folder: refined.then(|| folder_beside(request.target)).flatten(),
            fingerprint: fingerprint(request.plan, request.calibration),
            unbroken: true,
        }
    }

    /// A layer that an earlier run has refined from the same start, and what was measured there. `original` is the attention
    /// that it replaces.
    pub fn find(
        &mut self,
        plan: &Plan,
        layer: usize,
        original: &GroupedAttention,
    ) -> Result<Option<(LatentAttention, LayerReport)>, CoreError> {
        let Some(folder) = &self.folder else { return Ok(None) };
        let mut hasher = DefaultHasher::new();
        self.fingerprint.hash(&mut hasher);
        for linear in [&original.q, &original.k, &original.v, &original.o] {
            let values = host_values(linear.weight.clone())?;
            values.iter().for_each(|value| value.to_bits().hash(&mut hasher));
        }
        self.fingerprint = hasher.finish();
        let folder = layer_folder(folder, layer);
        let device = original.o.weight.device();
        let found = self
            .unbroken
            .then(|| self.read(plan, layer, &folder, &device))
            .flatten();
        self.unbroken = found.is_some();
        Ok(found)
    }

    /// What cannot be read is as good as absent: the layer is refined again.
    fn read(
        &self,
        plan: &Plan,
        layer: usize,
        folder: &Path,
        device: &Device,
    ) -> Option<(LatentAttention, LayerReport)> {
        let label: Label = serde_json::from_slice(&fs::read(folder.join(LABEL)).ok()?).ok()?;
        if label.fingerprint != self.fingerprint.to_string() {
            return None;
        }
        let (config, latent, _) = plan.solved_attention(layer);
        let checkpoint = Checkpoint::open(folder).ok()?;
        let attention = LatentAttention::read(&checkpoint, layer, &config, &latent, device).ok()?;
        let report = LayerReport {
            layer,
            balance_ratio: 1.0,
            kept_energy: f64::from_bits(label.kept_energy),
            key_error: label.key_error.map(f64::from_bits),
            output_error: label.output_error.map(f64::from_bits),
        };
        Some((attention, report))
    }

    /// Keeps a layer, whole or not at all.
    pub fn keep(&self, plan: &Plan, attention: &LatentAttention, report: &LayerReport) -> Result<(), ConvertError> {
        let Some(folder) = &self.folder else { return Ok(()) };
        let tensors = assemble::tensors(report.layer, attention, None, 1.0)?;
        let (_, _, specs) = plan.solved_attention(report.layer);
        let target = layer_folder(folder, report.layer);
        let mut writer = CheckpointWriter::create(&target, &specs, StorageDtype::F32, u64::MAX, true)?;
        for (name, values) in &tensors {
            writer.write(name, values)?;
        }
        let label = Label {
            fingerprint: self.fingerprint.to_string(),
            kept_energy: report.kept_energy.to_bits(),
            key_error: report.key_error.map(f64::to_bits),
            output_error: report.output_error.map(f64::to_bits),
        };
        writer.write_file(LABEL, &serde_json::to_vec(&label).unwrap_or_default())?;
        writer.commit()?;
        Ok(())
    }
}

/// Removes the layers that were kept for a model that now stands at `target`.
pub(crate) fn forget(target: &Path) -> Result<(), CoreError> {
    match folder_beside(target) {
        Some(folder) if folder.is_dir() => {
            fs::remove_dir_all(&folder).map_err(|error| CoreError::io("remove", &folder, error))
        }
        _ => Ok(()),
    }
}

fn folder_beside(target: &Path) -> Option<PathBuf> {
    let mut name = OsString::from(".");
    name.push(target.file_name()?);
    name.push(".layers");
    Some(target.with_file_name(name))
}

fn layer_folder(folder: &Path, layer: usize) -> PathBuf {
    folder.join(format!("layer-{layer:05}"))
}

/// Stands for everything that a layer follows from, but for the original's weights. The hash may change with the
/// compiler; all that happens then is that layers are refined again.
fn fingerprint(plan: &Plan, text: &TokenBatch) -> u64 {
    let mut hasher = DefaultHasher::new();
    env!("CARGO_PKG_VERSION").hash(&mut hasher);
    serde_json::to_string(&plan.target_json)
        .unwrap_or_default()
        .hash(&mut hasher);
    let options = &plan.options;
    format!("{:?} {:?}", options.method, (options.refine, options.cal_batch_size)).hash(&mut hasher);
    (options.use_qkv_norm, options.q_lora_rank).hash(&mut hasher);
    (text.sequence(), text.ids()).hash(&mut hasher);
    hasher.finish()
}
