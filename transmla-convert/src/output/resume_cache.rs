//! The resume cache: refined layers on disk until their model is complete, so that a run that was ended can go on.
//!
//! Refinement is what takes the time of a conversion. Beside the folder `NAME` to make there is, until the model stands there,
//! `.NAME.layers` with one small checkpoint for each refined layer, in f32. Whether a layer is still of use is told by a
//! SHA-256 fingerprint of everything that it follows from: all weights of the original (gradients and hidden states come from
//! every one of them), its configuration, the choices of the plan, the text, the device, this version, and the layers
//! before it as they were saved. Whether it is still what was written is told by a checksum of its own.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use transmla_core::checkpoint::{CheckpointWriter, Fingerprint, Place, read_regular};
use transmla_core::model::attention::LatentAttention;
use transmla_core::{Checkpoint, CoreError, LayeredModel, StorageDtype, TokenBatch};

use crate::layer::assemble;
use crate::solve::method::{Job, LayerStore};
use crate::solve::refinement;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::recipe::{CalibrationText, Recipe};
use crate::spec::report::{LayerReport, Observer, SavedLayer};

/// Changes when the same options come to give other layers.
const REVISION: &str = "2";

/// The resume cache of one conversion.
pub(crate) struct ResumeCache {
    /// Nothing where no layers are saved.
    folder: Option<PathBuf>,
    /// Stands for all that the next layer follows from.
    fingerprint: Fingerprint,
}

/// What is said of a saved layer. Numbers are told by their bits: decimal digits may be read back as a neighbour.
#[derive(Serialize, Deserialize)]
struct Label {
    fingerprint: String,
    kept_energy: u64,
    key_error: Option<u64>,
    output_error: Option<u64>,
    /// Of all the rest and the tensors.
    checksum: String,
}

const LABEL: &str = "layer.json";

/// Most bytes of a label, which has some hundreds.
const LARGEST_LABEL: u64 = 1 << 16;

impl ResumeCache {
    /// That of a conversion; it stays empty where nothing is refined, for a closed form is found again in no time.
    ///
    /// # Errors
    /// The original's weights cannot be read, or have changed since they were opened.
    pub fn of(job: &Job<'_>, save_path: &Path) -> Result<Self, ConvertError> {
        let (plan, source) = (job.plan, job.source);
        if refinement(plan.recipe()) == 0 {
            return Ok(Self {
                folder: None,
                fingerprint: Fingerprint::default(),
            });
        }
        let origin = Origin {
            weights: source.checkpoint().fingerprint()?,
            device: &format!("{:?}", source.device()),
        };
        Ok(Self {
            folder: Some(Place::of(save_path)?.hidden("layers")),
            fingerprint: start(plan, job.calibration, &origin)?,
        })
    }

    /// What comes after a layer follows from it too.
    fn follow(&mut self, checksum: &Fingerprint) {
        let mut hasher = Sha256::new();
        hasher.update(self.fingerprint);
        hasher.update(checksum);
        self.fingerprint = hasher.finalize().into();
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
        let folder = layer_folder(self.folder.as_deref()?, layer);
        if !folder.exists() {
            return None;
        }
        // What cannot be read is as good as damaged: the layer is refined again.
        let label = read_regular(&folder.join(LABEL), LARGEST_LABEL).ok();
        let label: Option<Label> = label.and_then(|text| serde_json::from_slice(&text).ok());
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
        let Some(folder) = &self.folder else { return Ok(()) };
        let tensors = assemble::tensors(report.layer, attention, None, 1.0)?;
        let (_, _, specs) = plan.solved_attention(report.layer);
        let place = layer_folder(folder, report.layer);
        let mut writer = CheckpointWriter::create(&place, &specs, StorageDtype::F32, u64::MAX, true)?;
        for (name, values) in &tensors {
            writer.write(name, values)?;
        }
        writer.finish()?;
        let contents = Checkpoint::open(writer.work_folder())?.fingerprint()?;
        let mut label = Label {
            fingerprint: hex(&self.fingerprint),
            kept_energy: report.kept_energy.to_bits(),
            key_error: report.key_error.map(f64::to_bits),
            output_error: report.output_error.map(f64::to_bits),
            checksum: String::new(),
        };
        let checksum = label.checksum_with(&contents);
        label.checksum = hex(&checksum);
        let text = serde_json::to_vec(&label).map_err(ConvertError::encode(LABEL))?;
        writer.write_file(LABEL, &text)?;
        writer.commit()?;
        self.follow(&checksum);
        observer.saved_layer(report.layer, SavedLayer::Saved);
        Ok(())
    }
}

impl Label {
    fn checksum_with(&self, contents: &Fingerprint) -> Fingerprint {
        let mut fields = Fields::default();
        fields.add("fingerprint", &self.fingerprint);
        let numbers = (self.kept_energy, self.key_error, self.output_error);
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
        balance_ratio: 1.0,
        kept_energy: f64::from_bits(label.kept_energy),
        key_error: label.key_error.map(f64::from_bits),
        output_error: label.output_error.map(f64::from_bits),
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

/// What a conversion starts from beside its plan and text.
struct Origin<'a> {
    /// Of the original's weights.
    weights: Fingerprint,
    device: &'a str,
}

/// Stands for everything that the first layer follows from.
fn start(plan: &Plan, text: &TokenBatch, origin: &Origin<'_>) -> Result<Fingerprint, ConvertError> {
    let json = |file, map| serde_json::to_string(map).map_err(ConvertError::encode(file));
    // By name, so that whoever adds a choice decides whether layers follow from it.
    let Recipe {
        method,
        refine: _,
        qk_mqa_dim,
        collapse,
        freqfold,
        kv_lora_rank,
        q_lora_rank,
        balance_kv_ratio,
        use_qkv_norm,
        style,
        engine,
        dtype,
        calibration: CalibrationText { cal_batch_size, .. },
        // The source and the text count by what is in them.
        model_path: _,
        revision: _,
        evaluation: _,
        // The files alone.
        format: _,
        pre_tokenizer: _,
        max_shard_size: _,
        files: _,
        transmla_version: _,
    } = plan.recipe();
    let steps = refinement(plan.recipe());
    let shapes = (qk_mqa_dim, collapse, freqfold, kv_lora_rank, q_lora_rank);
    let rest = (
        balance_kv_ratio.to_bits(),
        use_qkv_norm,
        style,
        engine,
        dtype,
        cal_batch_size,
    );
    let mut fields = Fields::default();
    fields.add("version", concat!(env!("CARGO_PKG_VERSION"), "/"));
    fields.add("revision", REVISION);
    fields.add("weights", origin.weights);
    fields.add("device", origin.device);
    fields.add("source", json("config.json", &plan.source().raw)?);
    fields.add("target", json("config.json", &plan.config_json())?);
    fields.add("options", format!("{method:?} {steps} {shapes:?} {rest:?}"));
    fields.add("sequence", text.sequence().to_le_bytes());
    let ids: Vec<u8> = text.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
    fields.add("text", ids);
    Ok(fields.end())
}

/// A hash of named values that cannot run into each other.
#[derive(Default)]
struct Fields(Sha256);

impl Fields {
    fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn end(self) -> Fingerprint {
        self.0.finalize().into()
    }
}

fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use transmla_core::ModelConfig;

    use super::*;

    /// Whatever a layer follows from has its part in the fingerprint, and the files' form has none.
    #[test]
    fn everything_counts_that_a_layer_follows_from() {
        let config = json!({
            "model_type": "llama", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 50, "rms_norm_eps": 1e-5,
            "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 64,
        });
        let config = |key: &str, value: serde_json::Value| {
            let mut map = config.as_object().unwrap().clone();
            map.insert(key.into(), value);
            ModelConfig::from_json(map).unwrap()
        };
        let source = config("rms_norm_eps", json!(1e-5));
        let base = Recipe {
            qk_mqa_dim: Some(4),
            kv_lora_rank: Some(12),
            ..Recipe::default()
        };
        let text = TokenBatch::from_ids((0..40).collect(), 4, 10).unwrap();
        let of = |source: &ModelConfig, options: &Recipe, text: &TokenBatch, weights: u8, device: &str| {
            let plan = Plan::new(source, options).unwrap();
            let weights = [weights; 32];
            start(&plan, text, &Origin { weights, device }).unwrap()
        };
        let expected = of(&source, &base, &text, 1, "cpu");
        assert_eq!(expected, of(&source, &base, &text, 1, "cpu"));
        let files = Recipe {
            max_shard_size: 1000,
            ..base.clone()
        };
        assert_eq!(expected, of(&source, &files, &text, 1, "cpu"));

        let mut others = vec![
            of(&source, &base, &text, 2, "cpu"),
            of(&source, &base, &text, 1, "gpu"),
            of(&config("rope_theta", json!(500.0)), &base, &text, 1, "cpu"),
        ];
        let shapes = [(8, 5), (5, 8)].map(|(batch, sequence)| TokenBatch::from_ids((0..40).collect(), batch, sequence));
        others.extend(shapes.map(|text| of(&source, &base, &text.unwrap(), 1, "cpu")));
        let changed = TokenBatch::from_ids((0..40).map(|id| id.min(38)).collect(), 4, 10).unwrap();
        others.push(of(&source, &base, &changed, 1, "cpu"));
        let with = |change: &dyn Fn(&mut Recipe)| {
            let mut options = base.clone();
            change(&mut options);
            of(&source, &options, &text, 1, "cpu")
        };
        others.push(with(&|options| options.refine = Some(7)));
        others.push(with(&|options| options.qk_mqa_dim = Some(8)));
        others.push(with(&|options| options.kv_lora_rank = Some(13)));
        others.push(with(&|options| options.q_lora_rank = Some(9)));
        others.push(with(&|options| options.use_qkv_norm = true));
        others.push(with(&|options| options.style = crate::spec::options::Style::Family));
        others.push(with(&|options| options.dtype = StorageDtype::F16));
        others.push(with(&|options| options.calibration.cal_batch_size = 3));
        others.push(expected);
        let count = others.len();
        others.sort();
        others.dedup();
        assert_eq!(others.len(), count);
    }
}
