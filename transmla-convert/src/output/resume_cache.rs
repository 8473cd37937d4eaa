//! The resume cache: solved layers on disk until their model is complete, so that a run that was ended can go on.
//!
//! Beside the folder `NAME` to make there is, until the model stands there,
//! `.NAME.layers` with one small checkpoint for each solved layer, in f32. Whether a layer is still of use is told by a
//! SHA-256 fingerprint of everything that it follows from: all weights of the original (gradients and hidden states come from
//! every one of them), its configuration, the choices of the plan, the text, the device, this version, and the layers
//! before it as they were saved. Whether it is still what was written is told by a checksum of its own.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use transmla_core::checkpoint::{CheckpointWriter, Fingerprint, Place, read_regular};
use transmla_core::model::attention::LatentAttention;
use transmla_core::{Checkpoint, CoreError, LayeredModel, StorageDtype};

use crate::layer::assemble;
use crate::output::resume_start::{Fields, Origin, following, hex, start, unhex};
use crate::solve::method::{Job, LayerStore};
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::report::{LayerReport, Observer, SavedLayer};

/// The resume cache of one conversion.
pub(crate) struct ResumeCache {
    folder: PathBuf,
    /// Stands for all that the next layer follows from.
    fingerprint: Fingerprint,
}

/// What is said of a saved layer. Numbers are told by their bits: decimal digits may be read back as a neighbour.
#[derive(Serialize, Deserialize)]
struct Label {
    fingerprint: String,
    balance_ratio: u64,
    kept_energy: u64,
    key_error: Option<u64>,
    output_error: Option<u64>,
    stream_error: Option<u64>,
    /// Of all the rest and the tensors.
    checksum: String,
}

const LABEL: &str = "layer.json";

/// Most bytes of a label, which has some hundreds.
const LARGEST_LABEL: u64 = 1 << 16;

impl ResumeCache {
    /// That of a conversion.
    ///
    /// # Errors
    /// The original's weights cannot be read, or have changed since they were opened.
    pub fn of(job: &Job<'_>, save_path: &Path) -> Result<Self, ConvertError> {
        let (plan, source) = (job.plan, job.source);
        let origin = Origin {
            weights: source.checkpoint().fingerprint()?,
            device: &format!("{:?}", source.device()),
        };
        Ok(Self {
            folder: Place::of(save_path)?.hidden("layers"),
            fingerprint: start(plan, job.calibration, &origin)?,
        })
    }

    /// Whether an earlier run to the same place has saved layers that this conversion might take over.
    pub fn is_there(save_path: &Path) -> Result<bool, ConvertError> {
        Ok(layer_folder(&Place::of(save_path)?.hidden("layers"), 0).is_dir())
    }

    /// How many layers from the next one on are saved and follow from the same start, by what is said of them: whether their
    /// files are whole shows when they are read.
    pub fn saved_from(&self, layer: usize) -> usize {
        let mut next = self.fingerprint;
        (layer..)
            .take_while(|layer| {
                let label = Label::read(&layer_folder(&self.folder, *layer));
                let label = label.filter(|label| label.fingerprint == hex(&next));
                let checksum = label.and_then(|label| unhex(&label.checksum));
                checksum.map(|checksum| next = following(&next, &checksum)).is_some()
            })
            .count()
    }

    /// What comes after a layer follows from it too.
    fn follow(&mut self, checksum: &Fingerprint) {
        self.fingerprint = following(&self.fingerprint, checksum);
    }

    /// Removes saved layers from this one on, if it follows from something else than it would now: no run will take them over.
    fn drop_others(&self, layer: usize) -> Result<(), CoreError> {
        let next = Label::read(&layer_folder(&self.folder, layer));
        if next.is_none_or(|label| label.fingerprint == hex(&self.fingerprint)) {
            return Ok(());
        }
        let mut stale = (layer..)
            .map(|layer| layer_folder(&self.folder, layer))
            .take_while(|it| it.exists());
        stale
            .try_for_each(|folder| fs::remove_dir_all(&folder).map_err(|error| CoreError::io("remove", &folder, error)))
    }
}

impl LayerStore for ResumeCache {
    fn find(
        &mut self,
        plan: &Plan,
        layer: usize,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Option<(LatentAttention, LayerReport)> {
        let folder = layer_folder(&self.folder, layer);
        if !folder.exists() {
            return None;
        }
        // What cannot be read is as good as damaged: the layer is solved again.
        let label = Label::read(&folder);
        if label
            .as_ref()
            .is_some_and(|label| label.fingerprint != hex(&self.fingerprint))
        {
            observer.saved_layer(layer, SavedLayer::Outdated);
            return None;
        }
        let found = label.and_then(|label| read(plan, layer, &folder, &label, device));
        match found {
            Some((attention, report, checksum)) => {
                self.follow(&checksum);
                observer.saved_layer(layer, SavedLayer::Reused);
                Some((attention, report))
            }
            None => {
                observer.saved_layer(layer, SavedLayer::Damaged);
                None
            }
        }
    }

    fn keep(
        &mut self,
        plan: &Plan,
        attention: &LatentAttention,
        report: &LayerReport,
        observer: &mut dyn Observer,
    ) -> Result<(), ConvertError> {
        let tensors = assemble::tensors(report.layer, attention, None, 1.0)?;
        let (_, _, specs) = plan.solved_attention(report.layer);
        let place = layer_folder(&self.folder, report.layer);
        let mut writer = CheckpointWriter::create(&place, &specs, StorageDtype::F32, u64::MAX, true)?;
        for (name, values) in &tensors {
            writer.write(name, values)?;
        }
        writer.finish()?;
        let contents = Checkpoint::open(writer.work_folder())?.fingerprint()?;
        let mut label = Label {
            fingerprint: hex(&self.fingerprint),
            balance_ratio: report.balance_ratio.to_bits(),
            kept_energy: report.kept_energy.to_bits(),
            key_error: report.key_error.map(f64::to_bits),
            output_error: report.output_error.map(f64::to_bits),
            stream_error: report.stream_error.map(f64::to_bits),
            checksum: String::new(),
        };
        let checksum = label.checksum_with(&contents);
        label.checksum = hex(&checksum);
        let text = serde_json::to_vec(&label).map_err(ConvertError::encode(LABEL))?;
        writer.write_file(LABEL, &text)?;
        writer.commit()?;
        self.follow(&checksum);
        self.drop_others(report.layer + 1)?;
        observer.saved_layer(report.layer, SavedLayer::Saved);
        Ok(())
    }
}

impl Label {
    /// Nothing if it cannot be read.
    fn read(folder: &Path) -> Option<Self> {
        let text = read_regular(&folder.join(LABEL), LARGEST_LABEL).ok()?;
        serde_json::from_slice(&text).ok()
    }

    fn checksum_with(&self, contents: &Fingerprint) -> Fingerprint {
        let mut fields = Fields::default();
        fields.add("fingerprint", &self.fingerprint);
        let errors = (self.key_error, self.output_error, self.stream_error);
        let numbers = (self.balance_ratio, self.kept_energy, errors);
        fields.add("numbers", format!("{numbers:?}"));
        fields.add("contents", contents);
        fields.end()
    }
}

fn read(
    plan: &Plan,
    layer: usize,
    folder: &Path,
    label: &Label,
    device: &Device,
) -> Option<(LatentAttention, LayerReport, Fingerprint)> {
    let (config, latent, _) = plan.solved_attention(layer);
    let checkpoint = Checkpoint::open(folder).ok()?;
    let checksum = label.checksum_with(&checkpoint.fingerprint().ok()?);
    if label.checksum != hex(&checksum) {
        return None;
    }
    let attention = LatentAttention::read(&checkpoint, layer, &config, &latent, device).ok()?;
    let report = LayerReport {
        layer,
        balance_ratio: f64::from_bits(label.balance_ratio),
        kept_energy: f64::from_bits(label.kept_energy),
        key_error: label.key_error.map(f64::from_bits),
        output_error: label.output_error.map(f64::from_bits),
        stream_error: label.stream_error.map(f64::from_bits),
    };
    Some((attention, report, checksum))
}

/// Removes the resume cache of a model that now stands at `save_path`.
pub(crate) fn forget(save_path: &Path) -> Result<(), CoreError> {
    let folder = Place::of(save_path)?.hidden("layers");
    match folder.is_dir() {
        true => fs::remove_dir_all(&folder).map_err(|error| CoreError::io("remove", &folder, error)),
        false => Ok(()),
    }
}

fn layer_folder(folder: &Path, layer: usize) -> PathBuf {
    folder.join(format!("layer-{layer:05}"))
}
