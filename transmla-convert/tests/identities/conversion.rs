//! Conversions of small models, compared with what they were made from.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_convert::{
    DecoupledModel, FreqFold, MethodName, Plan, Recipe, Report, Silent, WithoutLatentNorms, convert, decouple,
};
use transmla_core::config::RopeConfig;
use transmla_core::{Decoder, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch};
use transmla_eval::{Divergence, EvalOptions, divergence};

use crate::common;

/// The folder of a recorded model.
pub fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../transmla-core/tests/families")
        .join(name)
}

/// Token ids without meaning, but reproducible.
pub fn tokens(vocab_size: usize, batch: usize, sequence: usize) -> TokenBatch {
    let mut state = 12345u64;
    let ids = (0..batch * sequence).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((state >> 33) % vocab_size as u64) as i64
    });
    TokenBatch::from_ids(ids.collect(), batch, sequence).unwrap()
}

pub fn compare(first: &dyn LayeredModel, second: &dyn LayeredModel) -> Divergence {
    let text = tokens(first.config().vocab_size, 2, 48);
    divergence(
        first,
        second,
        &text,
        &EvalOptions::default(),
        &mut transmla_eval::Silent,
    )
    .unwrap()
}

/// A conversion, and how far what it wrote is from other models: without the norms of latents that are to change nothing, and
/// do by up to a thousandth (`formats` has what that comes to), so that everything else is held to single precision.
pub struct Outcome {
    pub plan: Plan,
    pub report: Report,
    /// The written model's folder, gone with this.
    pub folder: tempfile::TempDir,
    /// From the RoPE-decoupled model (published method).
    pub from_decoupled: Option<Divergence>,
    pub from_original: Divergence,
}

impl Outcome {
    pub fn saved(&self) -> PathBuf {
        self.folder.path().join("mla")
    }

    /// The written config.json.
    pub fn config(&self) -> ModelConfig {
        ModelConfig::read(&self.saved()).unwrap()
    }
}

/// Converts a folder on a little text.
pub fn run(folder: &Path, options: &Recipe) -> Outcome {
    let device = Device::flex();
    let source = Decoder::open(folder, &device, Residency::Loaded).unwrap();
    let plan = Plan::new(source.config(), options).unwrap();
    let calibration = tokens(source.config().vocab_size, 4, 32);
    let output = tempfile::tempdir().unwrap();
    let save_path = output.path().join("mla");
    let request = common::request(&plan, &source, &calibration, &save_path);
    let report = convert(&request, &mut Silent).unwrap();
    let written = ModelConfig {
        raw: plan.converted().raw.clone(),
        ..ModelConfig::read_alone(&save_path).unwrap()
    };
    assert_eq!(
        plan.converted(),
        &written,
        "what was planned is not what config.json says"
    );
    let converted = Decoder::open(&save_path, &device, Residency::Streamed).unwrap();
    let plain = WithoutLatentNorms(&converted);
    let converted: &dyn LayeredModel = match options.use_qkv_norm {
        true => &converted,
        false => &plain,
    };
    let from_decoupled = (options.method == MethodName::Transmla).then(|| {
        let decoupled = decouple(&plan, &source, &calibration, &EvalOptions::default(), &mut Silent).unwrap();
        let model = DecoupledModel::new(&source, &plan, &decoupled.rotations).with_keys(&decoupled.keys);
        compare(&model, converted)
    });
    Outcome {
        report,
        from_decoupled,
        from_original: compare(&source, converted),
        folder: output,
        plan,
    }
}

/// Distances of the result from the decoupled model and from the original.
pub fn distances(folder: &Path, options: &Recipe) -> (Divergence, Divergence) {
    let outcome = run(folder, options);
    (outcome.from_decoupled.unwrap(), outcome.from_original)
}

/// Everything at full rank: keys, values and, if asked for, queries.
pub fn full_rank(folder: &Path, rope_dim: usize, freqfold: usize, low_rank_queries: bool) -> Recipe {
    let config = ModelConfig::read(folder).unwrap();
    let grouped = config.grouped().unwrap();
    // Layers without positions have nothing in the rotary key.
    let beside = match config.rope.kinds().iter().all(RopeConfig::has_positions) {
        true => rope_dim,
        false => 0,
    };
    Recipe {
        method: MethodName::Transmla,
        refine: Some(0),
        qk_mqa_dim: Some(rope_dim),
        freqfold: FreqFold::Fixed(freqfold),
        kv_lora_rank: Some(2 * grouped.key_width() - beside),
        q_lora_rank: low_rank_queries.then_some(config.num_attention_heads * grouped.head_dim),
        dtype: StorageDtype::F32,
        max_shard_size: 100_000,
        ..Recipe::default()
    }
}
