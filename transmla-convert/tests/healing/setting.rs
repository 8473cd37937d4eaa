//! Small originals, their conversions, and text.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_convert::{HealReport, HealRequest, Healing, Observer, Plan, Recipe, Silent, Words, convert, heal};
use transmla_core::{Checkpoint, Decoder, LayeredModel, Residency, TokenBatch};

use crate::common;

/// An original and a model that was made of it, in a folder that is gone with this.
pub struct Setting {
    place: tempfile::TempDir,
    pub text: TokenBatch,
}

/// Token ids without meaning, but reproducible.
pub fn tokens(vocab_size: usize, batch: usize, sequence: usize) -> TokenBatch {
    let mut state = 777u64;
    let ids = (0..batch * sequence).map(|_| {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        ((state >> 33) % vocab_size as u64) as i64
    });
    TokenBatch::from_ids(ids.collect(), batch, sequence).unwrap()
}

pub fn open(folder: &Path) -> Decoder {
    Decoder::open(folder, &Device::flex(), Residency::Loaded).unwrap()
}

impl Setting {
    /// An original that a function writes, converted by a recipe in closed form.
    pub fn of(write: impl Fn(&Path), recipe: &Recipe) -> Self {
        let place = tempfile::tempdir().unwrap();
        let original = place.path().join("original");
        write(&original);
        Self::convert(place, recipe)
    }

    fn convert(place: tempfile::TempDir, recipe: &Recipe) -> Self {
        let source = open(&place.path().join("original"));
        let recipe = Recipe {
            refine: Some(0),
            ..recipe.clone()
        };
        let plan = Plan::new(source.config(), &recipe).unwrap();
        let text = tokens(source.config().vocab_size, 8, 24);
        let target = place.path().join("converted");
        let toml = recipe.to_toml().unwrap();
        let files = [("transmla.toml".to_owned(), with_model(&toml).into_bytes())];
        let request = transmla_convert::Request {
            extra_files: &files,
            ..common::request(&plan, &source, &text, &target)
        };
        convert(&request, &mut Silent).unwrap();
        Self { place, text }
    }

    /// The small real model of the repository, at 31 % of its cache.
    pub fn stories() -> Self {
        let place = tempfile::tempdir().unwrap();
        let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
        let original = place.path().join("original");
        std::fs::create_dir(&original).unwrap();
        for entry in std::fs::read_dir(models).unwrap().flatten() {
            std::fs::copy(entry.path(), original.join(entry.file_name())).unwrap();
        }
        let recipe = Recipe {
            qk_mqa_dim: Some(8),
            kv_lora_rank: Some(12),
            ..Recipe::default()
        };
        Self::convert(place, &recipe)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Heals the converted model to a place.
    pub fn heal(&self, healing: &Healing, target: &str) -> HealReport {
        self.heal_with(healing, target, &mut Silent).unwrap()
    }

    pub fn heal_with(
        &self,
        healing: &Healing,
        target: &str,
        observer: &mut dyn Observer,
    ) -> Result<HealReport, transmla_convert::ConvertError> {
        let (converted, original) = (open(&self.path("converted")), open(&self.path("original")));
        let save_path = self.path(target);
        let request = HealRequest {
            converted: &converted,
            original: &original,
            text: &self.text,
            healing,
            save_path: &save_path,
            replace: true,
            words: Words {
                original: "the original",
                text: "numbers",
            },
            extra_files: &[],
        };
        heal(&request, observer)
    }

    pub fn weights(&self, name: &str) -> Checkpoint {
        Checkpoint::open(&self.path(name)).unwrap()
    }
}

/// A recipe is for a model.
fn with_model(toml: &str) -> String {
    toml.replacen("model-path = \"\"", "model-path = \"./original\"", 1)
}

/// Everything of a tensor, as it is stored.
pub fn stored(checkpoint: &Checkpoint, name: &str) -> Vec<u8> {
    let mut all = Vec::new();
    checkpoint
        .bytes(name, &mut |piece| {
            all.extend_from_slice(piece);
            Ok(())
        })
        .unwrap();
    all
}

/// A healing of a few steps.
pub fn few_steps(steps: usize) -> Healing {
    Healing {
        steps,
        batch_size: 4,
        micro_batch: 2,
        held_out: 0.2,
        learning_rate: 0.01,
        checks: 3,
        ..Healing::default()
    }
}
