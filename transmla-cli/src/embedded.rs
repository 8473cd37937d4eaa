//! The model and the text that the binary carries, so that it can be tried without a network.

use std::path::Path;

use anyhow::Context;
use tempfile::TempDir;
use transmla_convert::Recipe;

use crate::interrupt;

/// What the model goes by in `--model-path`.
pub const MODEL: &str = "embedded";

/// What it is called elsewhere.
pub const MODEL_NAME: &str = "stories260K";

/// What the text goes by in `--cal-dataset` and its like.
pub const TEXT: &str = "stories";

/// Windows of the evaluation: the model's whole context.
const CONTEXT: usize = 512;

macro_rules! files {
    ($folder:literal: $($name:literal),+ $(,)?) => {
        &[$(($name, include_bytes!(concat!("../models/", $folder, "/", $name)))),+]
    };
}

type Files = &'static [(&'static str, &'static [u8])];

/// stories260K, a Llama of 260 thousand parameters.
const MODEL_FILES: Files = files!(
    "stories260k":
    "LICENSE",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
);

/// Stories of the kind that it was trained on.
const TEXT_FILES: Files = files!(
    "stories":
    "train-00000-of-00001.parquet",
    "validation-00000-of-00001.parquet",
    "test-00000-of-00001.parquet",
);

/// The model, unpacked for as long as the value lives.
pub fn unpack_model() -> anyhow::Result<TempDir> {
    unpack(MODEL_FILES)
}

/// The text, unpacked for as long as the value lives.
pub fn unpack_text() -> anyhow::Result<TempDir> {
    unpack(TEXT_FILES)
}

/// Defaults that fit the model, where the published ones are for models a thousand times larger.
pub fn recipe() -> Recipe {
    let mut recipe = Recipe {
        model_path: MODEL.into(),
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        ..Recipe::default()
    };
    recipe.calibration.cal_dataset = Some(TEXT.into());
    recipe.evaluation.eval_seqlen = Some(CONTEXT);
    recipe
}

fn unpack(files: Files) -> anyhow::Result<TempDir> {
    let fail = |folder: &Path| format!("cannot unpack the embedded files into {}", folder.display());
    let folder = interrupt::temporary_folder().with_context(|| fail(&std::env::temp_dir()))?;
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents).with_context(|| fail(folder.path()))?;
    }
    Ok(folder)
}
