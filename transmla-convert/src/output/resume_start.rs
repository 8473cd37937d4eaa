//! What saved layers and statistics follow from, as fingerprints.

use sha2::{Digest, Sha256};
use transmla_core::checkpoint::Fingerprint;
use transmla_core::{Decoder, LayeredModel, TokenBatch};

use crate::solve::kept::Basis;
use crate::solve::refinement;
use crate::spec::calibration_text::CalibrationText;
use crate::spec::error::ConvertError;
use crate::spec::options::FreqFold;
use crate::spec::plan::Plan;
use crate::spec::recipe::{EvaluationText, Recipe};

/// Changes when the same options come to give other layers.
const REVISION: &str = "4";

/// What a conversion starts from beside its plan and text.
pub(crate) struct Origin<'a> {
    /// Of the original's weights.
    pub weights: Fingerprint,
    /// Its name: rounding is its own.
    pub device: &'a str,
}

/// Stands for everything that the first layer follows from.
pub(crate) fn start(plan: &Plan, text: &TokenBatch, origin: &Origin<'_>) -> Result<Fingerprint, ConvertError> {
    let json = |file, map| serde_json::to_string(map).map_err(ConvertError::encode(file));
    // By name, so that whoever adds a choice decides whether layers follow from it.
    let Recipe {
        method,
        refine: _,
        refine_batch,
        qk_mqa_dim,
        collapse,
        freqfold,
        latent_groups,
        tied,
        kv_lora_rank,
        q_lora_rank,
        balance_kv_ratio,
        key_norm,
        use_qkv_norm,
        style,
        engine,
        dtype,
        calibration: CalibrationText { cal_batch_size, .. },
        // A folding is chosen by perplexities.
        evaluation: EvaluationText {
            ppl_eval_batch_size, ..
        },
        // The source and the text count by what is in them.
        model_path: _,
        revision: _,
        tasks: _,
        // The files alone.
        format: _,
        pre_tokenizer: _,
        max_shard_size: _,
        heal: _,
        files: _,
        transmla_version: _,
    } = plan.recipe();
    let steps = refinement(plan.recipe());
    let shapes = (
        qk_mqa_dim,
        collapse,
        freqfold,
        kv_lora_rank,
        q_lora_rank,
        latent_groups,
        tied,
    );
    let chosen = (*freqfold == FreqFold::Auto).then_some(ppl_eval_batch_size);
    let rest = (
        (refine_batch, chosen),
        balance_kv_ratio.to_bits(),
        (key_norm, use_qkv_norm),
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
    fields.add_text(text);
    Ok(fields.end())
}

/// Stands for everything that statistics of an original follow from.
///
/// # Errors
/// The original's weights cannot be read, or have changed since they were opened.
pub(crate) fn statistics_start(basis: &Basis<'_>, source: &Decoder, device: &str) -> Result<Fingerprint, ConvertError> {
    let config = serde_json::to_string(&source.config().raw).map_err(ConvertError::encode("config.json"))?;
    let mut fields = Fields::default();
    fields.add("version", concat!(env!("CARGO_PKG_VERSION"), "/"));
    fields.add("revision", REVISION);
    fields.add("weights", source.checkpoint().fingerprint()?);
    fields.add("device", device);
    fields.add("source", config);
    fields.add("statistics", format!("{} {}", basis.name, basis.options));
    fields.add_text(basis.text);
    Ok(fields.end())
}

/// A hash of named values that cannot run into each other.
#[derive(Default)]
pub(crate) struct Fields(Sha256);

impl Fields {
    pub fn add(&mut self, name: &str, value: impl AsRef<[u8]>) {
        for part in [name.as_bytes(), value.as_ref()] {
            self.0.update((part.len() as u64).to_le_bytes());
            self.0.update(part);
        }
    }

    fn add_text(&mut self, text: &TokenBatch) {
        self.add("sequence", text.sequence().to_le_bytes());
        let ids: Vec<u8> = text.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
        self.add("text", ids);
    }

    pub fn end(self) -> Fingerprint {
        self.0.finalize().into()
    }
}

/// As text.
pub(crate) fn hex(fingerprint: &Fingerprint) -> String {
    fingerprint.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What a layer follows from, given that of the layer before and what came of it.
pub(crate) fn following(fingerprint: &Fingerprint, checksum: &Fingerprint) -> Fingerprint {
    let mut hasher = Sha256::new();
    hasher.update(fingerprint);
    hasher.update(checksum);
    hasher.finalize().into()
}

/// The fingerprint of a text that [`hex`] made, or nothing.
pub(crate) fn unhex(text: &str) -> Option<Fingerprint> {
    let byte = |index: usize| u8::from_str_radix(text.get(2 * index..2 * index + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..text.len() / 2).map(byte).collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use transmla_core::{ModelConfig, StorageDtype};

    use super::*;

    #[test]
    fn fingerprints_are_read_as_they_are_written() {
        let fingerprint: Fingerprint = std::array::from_fn(|index| (index * 37) as u8);
        assert_eq!(unhex(&hex(&fingerprint)), Some(fingerprint));
        assert_eq!(unhex(""), None);
        assert_eq!(unhex(&"x".repeat(64)), None);
    }

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
        others.push(with(&|options| options.latent_groups = Some(2)));
        others.push(with(&|options| options.tied = true));
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
