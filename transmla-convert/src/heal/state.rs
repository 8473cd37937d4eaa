//! What a run that was ended goes on from: weights, moments and where it was.
//!
//! It lies in the resume cache of the place, `.NAME.layers/heal`, until the model stands there. Whether it is of use is told by a
//! SHA-256 fingerprint of all that the training follows from, whether it is still what was written by a checksum of its own.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use serde::{Deserialize, Serialize};
use transmla_core::checkpoint::{CheckpointWriter, Fingerprint, Place, read_regular};
use transmla_core::{Checkpoint, Decoder, LayeredModel, ReadTensor, StorageDtype, TensorSpec, TokenBatch, host_values};

use crate::heal::student::Student;
use crate::output::resume_start::{Fields, hex};
use crate::spec::calibration_text::CalibrationText;
use crate::spec::error::ConvertError;
use crate::spec::healing::Healing;
use crate::spec::healing_report::{Distance, HealCheck};

/// Changes when the same options come to give another model.
const REVISION: &str = "1";

/// The names of the folders in the resume cache.
const STATE: &str = "heal";
const TEACHER: &str = "teacher";

const LABEL: &str = "state.json";

/// Most bytes of a label, which has some hundreds and a line for each check.
const LARGEST_LABEL: u64 = 1 << 20;

/// Where a training is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Position {
    /// Steps that are done.
    pub done: usize,
    /// What the held-out text said.
    pub checks: Vec<HealCheck>,
    /// The best weights by layer, and after how many steps they were.
    pub best: Vec<Vec<Tensor<2>>>,
    pub kept: usize,
}

/// What is said of a saved state. Numbers are told by their bits: decimal digits may be read back as a neighbour.
#[derive(Serialize, Deserialize)]
struct Label {
    fingerprint: String,
    done: usize,
    kept: usize,
    /// Steps, divergence and cross-entropy of each check.
    checks: Vec<(usize, u64, u64)>,
    /// Of all the rest and the tensors.
    checksum: String,
}

/// Where the state of a healing lies, and what it follows from.
pub(crate) struct StateStore {
    folder: PathBuf,
    fingerprint: Fingerprint,
}

/// What a training follows from.
#[derive(Clone, Copy)]
pub(crate) struct Origin<'a> {
    pub converted: &'a Decoder,
    pub original: &'a Decoder,
    pub text: &'a TokenBatch,
    pub healing: &'a Healing,
}

/// The folder of the original's logits beside a place.
pub(crate) fn teacher_folder(save_path: &Path) -> Result<PathBuf, ConvertError> {
    Ok(Place::of(save_path)?.hidden("layers").join(TEACHER))
}

impl StateStore {
    /// That of a healing to a place.
    ///
    /// # Errors
    /// The models' weights cannot be read, or have changed since they were opened.
    pub fn of(origin: &Origin<'_>, save_path: &Path) -> Result<Self, ConvertError> {
        Ok(Self {
            folder: Place::of(save_path)?.hidden("layers").join(STATE),
            fingerprint: origin.fingerprint()?,
        })
    }

    /// Where an earlier run was, if it began as this one does: the student is brought there. What cannot be read is as good as
    /// absent.
    pub fn find(&self, student: &mut Student<'_>, device: &Device) -> Option<Position> {
        let text = read_regular(&self.folder.join(LABEL), LARGEST_LABEL).ok()?;
        let label: Label = serde_json::from_slice(&text).ok()?;
        if label.fingerprint != hex(&self.fingerprint) {
            return None;
        }
        let checkpoint = Checkpoint::open(&self.folder).ok()?;
        if label.checksum != hex(&label.checksum_with(&checkpoint.fingerprint().ok()?)) {
            return None;
        }
        let mut read = |name: &str, shape: [usize; 2]| checkpoint.matrix(name, shape, device);
        let mut found = student.weights.clone();
        let mut best = Vec::new();
        for layer in &mut found {
            let mut of_layer = Vec::new();
            for weights in layer {
                weights.restore(&mut read).ok()?;
                of_layer.push(read(&best_name(&weights.key), weights.value.dims()).ok()?);
            }
            best.push(of_layer);
        }
        student.weights = found;
        let number = f64::from_bits;
        let checks = label.checks.iter().map(|(done, kl, cross_entropy)| HealCheck {
            done: *done,
            distance: Distance {
                kl: number(*kl),
                cross_entropy: number(*cross_entropy),
            },
        });
        Some(Position {
            done: label.done,
            checks: checks.collect(),
            best,
            kept: label.kept,
        })
    }

    /// Keeps where a training is, in the place of what was kept before.
    ///
    /// # Errors
    /// The disk is full, or the folder cannot be written.
    pub fn keep(&self, student: &Student<'_>, position: &Position) -> Result<(), ConvertError> {
        let mut tensors = Vec::new();
        for (layer, best) in student.weights.iter().zip(&position.best) {
            for (weights, best) in layer.iter().zip(best) {
                tensors.extend(weights.state());
                tensors.push((best_name(&weights.key), best.clone()));
            }
        }
        let specs: Vec<TensorSpec> = tensors
            .iter()
            .map(|(name, tensor)| TensorSpec::new(name.as_str(), tensor.dims()))
            .collect();
        let mut writer = CheckpointWriter::create(&self.folder, &specs, StorageDtype::F32, u64::MAX, true)?;
        for (name, tensor) in tensors {
            writer.write(&name, &host_values(tensor)?)?;
        }
        writer.finish()?;
        let contents = Checkpoint::open(writer.work_folder())?.fingerprint()?;
        let checks = position.checks.iter().map(|check| {
            let Distance { kl, cross_entropy } = check.distance;
            (check.done, kl.to_bits(), cross_entropy.to_bits())
        });
        let mut label = Label {
            fingerprint: hex(&self.fingerprint),
            done: position.done,
            kept: position.kept,
            checks: checks.collect(),
            checksum: String::new(),
        };
        label.checksum = hex(&label.checksum_with(&contents));
        let text = serde_json::to_vec(&label).map_err(ConvertError::encode(LABEL))?;
        writer.write_file(LABEL, &text)?;
        writer.commit()?;
        Ok(())
    }
}

fn best_name(key: &str) -> String {
    format!("{key}.best")
}

impl Label {
    fn checksum_with(&self, contents: &Fingerprint) -> Fingerprint {
        let mut fields = Fields::default();
        fields.add("fingerprint", &self.fingerprint);
        fields.add("position", format!("{} {} {:?}", self.done, self.kept, self.checks));
        fields.add("contents", contents);
        fields.end()
    }
}

impl Origin<'_> {
    fn fingerprint(&self) -> Result<Fingerprint, ConvertError> {
        let json =
            |model: &Decoder| serde_json::to_vec(&model.config().raw).map_err(ConvertError::encode("config.json"));
        // The text counts by what is in it, its seed by the order of sequences too.
        let options = Healing {
            transmla_version: String::new(),
            text: CalibrationText {
                seed: self.healing.text.seed,
                ..CalibrationText::default()
            },
            ..self.healing.clone()
        };
        let mut fields = Fields::default();
        fields.add("version", concat!(env!("CARGO_PKG_VERSION"), "/"));
        fields.add("revision", REVISION);
        for (name, model) in [("converted", self.converted), ("original", self.original)] {
            fields.add(name, model.checkpoint().fingerprint()?);
            fields.add("config.json", json(model)?);
        }
        fields.add("device", format!("{:?}", self.converted.device()));
        fields.add("options", format!("{options:?}"));
        fields.add("sequence", self.text.sequence().to_le_bytes());
        let ids: Vec<u8> = self.text.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
        fields.add("text", ids);
        Ok(fields.end())
    }
}
