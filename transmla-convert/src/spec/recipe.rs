//! `transmla.toml`: everything that is needed to repeat a conversion.

use std::path::PathBuf;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
use transmla_core::StorageDtype;
use transmla_eval::tasks::TaskOptions;

use crate::spec::calibration_text::CalibrationText;
use crate::spec::healing::Healing;
use crate::spec::options::{Engine, FileFormat, FreqFold, KeyNorm, MethodName, Style};
use crate::spec::recipe_forms;
use crate::spec::recipe_tasks::RecipeTasks;

/// The recipe of a conversion, written beside every converted model.
///
/// Keys have the names of the command line's options. Widths that are left out keep half of the original's cache
/// ([`default_shapes`](crate::default_shapes)), another key that is left out has the published default; a key that is not
/// known is an error, so that a misspelt one is not silently without effect.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Recipe {
    /// The version of this toolkit that the recipe was made with.
    pub transmla_version: String,
    /// The source: a folder, or a repository on the hub.
    pub model_path: String,
    /// Revision of a source on the hub.
    pub revision: String,
    /// How the latent model is found.
    pub method: MethodName,
    /// Steps of layer-wise reconstruction after the closed form; absent for 100 in the coherent method, which alone has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refine: Option<usize>,
    /// Sequences of a step of reconstruction; absent for one of each calibration text.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "recipe_forms::positive")]
    pub refine_batch: Option<usize>,
    /// Number format of the written weights.
    #[serde(with = "recipe_forms::as_text")]
    pub dtype: StorageDtype,
    /// Width of the one shared rotary key; absent for what `default_shapes` gives.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "recipe_forms::positive")]
    pub qk_mqa_dim: Option<usize>,
    /// Frequencies per slot of the rotary key.
    #[serde(with = "recipe_forms::auto_or_number")]
    pub collapse: Option<usize>,
    /// Frequency folding.
    #[serde(with = "recipe_forms::auto_or_number")]
    pub freqfold: FreqFold,
    /// Groups of key heads that have a latent and a rotary key each (grouped latent attention, GLA); absent for one latent of all, or
    /// with `tied` one of each key head. The two widths are those of one group.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "recipe_forms::positive")]
    pub latent_groups: Option<usize>,
    /// Whether a group's latent is its heads' value and their key without position as it is (grouped tied attention, GTA).
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tied: bool,
    /// Width of the latent that keys and values share; absent for what `default_shapes` gives.
    #[serde(skip_serializing_if = "Option::is_none", deserialize_with = "recipe_forms::positive")]
    pub kv_lora_rank: Option<usize>,
    /// Width of the query latent; absent for full queries.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub q_lora_rank: Option<usize>,
    /// How much larger than values the keys count in the joint PCA.
    pub balance_kv_ratio: f64,
    /// What becomes of the norm of keys, for models that normalise theirs alone; absent for exact where the engine runs that
    /// ([`KeyNorm::chosen`]).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key_norm: Option<KeyNorm>,
    /// RMSNorms on the latents.
    pub use_qkv_norm: bool,
    /// Class name and form of the written model. `deepseek-style = true` is another way to say `"deepseek-v3"`.
    #[serde(
        alias = "deepseek-style",
        deserialize_with = "recipe_forms::style_or_flag::deserialize"
    )]
    pub style: Style,
    /// The program that is to run the model; absent for whatever reads its form.
    #[serde(rename = "target", skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The files that it becomes; absent for what `target` reads, safetensors where there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<FileFormat>,
    /// llama.cpp's name for how the tokenizer splits text, if it cannot be told.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pre_tokenizer: Option<String>,
    /// Bound on the bytes of one safetensors shard.
    pub max_shard_size: u64,
    /// The text that is calibrated on.
    pub calibration: CalibrationText,
    /// The text that perplexities are measured on.
    pub evaluation: EvaluationText,
    /// The tasks that accuracy is measured on.
    #[serde(skip_serializing_if = "RecipeTasks::is_empty")]
    pub tasks: RecipeTasks,
    /// How the model was healed after its conversion, if it was; a conversion does not do it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub heal: Option<Box<Healing>>,
    /// The list of written files that a conversion appends; it says nothing on how to repeat it.
    #[serde(skip_serializing)]
    pub files: WrittenFiles,
}

/// The place of a list of files in a recipe; what is in it is not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WrittenFiles;

impl<'de> Deserialize<'de> for WrittenFiles {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// The fields of a [`Recipe`] that texts of this library name.
pub const RECIPE_FIELDS: [&str; 19] = [
    "method",
    "refine",
    "refine_batch",
    "dtype",
    "qk_mqa_dim",
    "collapse",
    "freqfold",
    "latent_groups",
    "tied",
    "kv_lora_rank",
    "q_lora_rank",
    "balance_kv_ratio",
    "key_norm",
    "use_qkv_norm",
    "style",
    "target",
    "format",
    "cal_dataset",
    "eval_dataset",
];

/// The text that perplexities are measured on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct EvaluationText {
    /// Windows that go through a layer together; 0 for no evaluation.
    pub ppl_eval_batch_size: usize,
    /// Dataset by name or path; absent for that of the calibration.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_dataset: Option<String>,
    /// Exact token ids, instead of a dataset.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_tokens: Option<PathBuf>,
    /// Tokens of a window; absent for 2048 (or the model's context, if that is shorter), or as `eval-tokens` has them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_seqlen: Option<usize>,
    /// Most windows to evaluate; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_max_windows: Option<usize>,
}

impl Default for Recipe {
    /// The defaults, without a model.
    fn default() -> Self {
        Self {
            transmla_version: env!("CARGO_PKG_VERSION").into(),
            model_path: String::new(),
            revision: "main".into(),
            method: MethodName::default(),
            refine: None,
            refine_batch: None,
            dtype: StorageDtype::Bf16,
            qk_mqa_dim: None,
            collapse: None,
            freqfold: FreqFold::Auto,
            latent_groups: None,
            tied: false,
            kv_lora_rank: None,
            q_lora_rank: None,
            balance_kv_ratio: 1.0,
            key_norm: None,
            use_qkv_norm: false,
            style: Style::Auto,
            engine: None,
            format: None,
            pre_tokenizer: None,
            max_shard_size: 5_000_000_000,
            calibration: CalibrationText::default(),
            evaluation: EvaluationText::default(),
            tasks: RecipeTasks::default(),
            heal: None,
            files: WrittenFiles,
        }
    }
}

impl Default for EvaluationText {
    fn default() -> Self {
        Self {
            ppl_eval_batch_size: 2,
            eval_dataset: None,
            eval_tokens: None,
            eval_seqlen: None,
            eval_max_windows: None,
        }
    }
}

/// Why a text is no recipe.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecipeError {
    /// Not TOML, a key that is not known, or a value of the wrong kind; says the line.
    #[error("not a conversion recipe: {0}")]
    Read(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A value that TOML cannot hold.
    #[error("the recipe cannot be written as TOML: {0}")]
    Write(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A number is out of its range.
    #[error("not a conversion recipe: {field} is {found}; expected {expected}")]
    Number {
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What would do.
        expected: &'static str,
    },
    /// There is no source.
    #[error("not a conversion recipe: model-path is required and absent")]
    NoModel,
}

impl Recipe {
    /// The files that the model becomes: what is asked for, or what the program that is to run it reads.
    pub fn file_format(&self) -> FileFormat {
        self.format.unwrap_or(match self.engine {
            Some(Engine::LlamaCpp) => FileFormat::Gguf,
            _ => FileFormat::Safetensors,
        })
    }

    /// The contents of `transmla.toml`.
    ///
    /// # Errors
    /// [`RecipeError::Write`] for numbers beyond TOML's 64 signed bits.
    pub fn to_toml(&self) -> Result<String, RecipeError> {
        let body = toml::to_string(self).map_err(|error| RecipeError::Write(error.into()))?;
        let healed = match &self.heal {
            Some(_) => " as it was before `transmla heal` trained it by what is under [heal]",
            None => "",
        };
        Ok(format!(
            "# How this model was made. `transmla convert --recipe` with this file makes it again{healed}.\n{body}"
        ))
    }

    /// Reads the contents of a `transmla.toml`.
    ///
    /// # Errors
    /// [`RecipeError::Read`] with the line, [`RecipeError::Number`], [`RecipeError::NoModel`].
    pub fn from_toml(text: &str) -> Result<Self, RecipeError> {
        let recipe: Self = toml::from_str(text).map_err(|error| RecipeError::Read(error.into()))?;
        recipe.check()?;
        Ok(recipe)
    }

    /// Checks what no type says.
    ///
    /// # Errors
    /// [`RecipeError::Number`], [`RecipeError::NoModel`].
    pub(crate) fn check(&self) -> Result<(), RecipeError> {
        if self.model_path.is_empty() {
            return Err(RecipeError::NoModel);
        }
        let wrong = |field, found: String, expected| Err(RecipeError::Number { field, found, expected });
        let (calibration, evaluation) = (&self.calibration, &self.evaluation);
        for (field, number) in [
            ("qk_mqa_dim", self.qk_mqa_dim),
            ("kv_lora_rank", self.kv_lora_rank),
            ("cal_nsamples", calibration.cal_nsamples),
            ("cal_max_seqlen", calibration.cal_max_seqlen),
            ("cal_batch_size", Some(calibration.cal_batch_size)),
            ("eval_max_windows", evaluation.eval_max_windows),
        ] {
            if number == Some(0) {
                return wrong(field, "0".into(), "a positive integer");
            }
        }
        if let Some(tokens @ ..2) = evaluation.eval_seqlen {
            let expected = "2 or more: the first token of a window is not predicted";
            return wrong("eval_seqlen", tokens.to_string(), expected);
        }
        if let Some(limit) = self.tasks.limit
            && !TaskOptions::is_limit(limit)
        {
            return wrong(
                "tasks.limit",
                limit.to_string(),
                "a number of records, or a share below 1",
            );
        }
        match calibration.cal_noise {
            Some(share) if !(0.0..=1.0).contains(&share) => {
                wrong("cal_noise", share.to_string(), "a share of 0 to 1 of the samples")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
