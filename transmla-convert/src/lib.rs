//! The conversion of grouped-query into multi-head latent attention: plan, validate, execute.
//!
//! | floor | what it holds |
//! | --- | --- |
//! | `conversion`, `sweep` | [`Conversion`], [`Sweep`]: from recipes to models with recipe and card |
//! | `setup`, `memory` | [`Setup`]: device, hub, texts; what is kept in memory |
//! | `heal` | [`Heal`], [`heal()`]: a converted model is trained on its original |
//! | `execute` | [`convert()`], [`convert_all`]: planned conversions with model and text at hand |
//! | `own_text` | calibration text that the original writes: found where it is kept, or written |
//! | `output` | companions of the weights, model card, GGUF, list of files, resume cache, verification |
//! | `solve` | how latent attention is found: a folder for each method |
//! | `layer` | weights of a layer, text through layers, DeepSeek's tensors, norms of latents |
//! | `text` | calibration and evaluation text: datasets, mixes, noise, token files |
//! | `spec` | [`Recipe`], [`Plan`], engines, what is supported, errors, [`Observer`] and [`Report`] |
//!
//! The crates whose types stand in public signatures are re-exported; burn is `transmla_core::burn`.
//!
//! A floor uses itself and those below it. `tests/floors.rs` reads the imports.
//!
//! # Example
//!
//! What [`Conversion`] does, with a model and a text at hand:
//!
//! ```
//! use burn::tensor::Device;
//! use std::path::Path;
//! use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, load, sample};
//! use transmla_convert::{Plan, Recipe, Request, Silent, convert};
//! use transmla_core::{Decoder, LayeredModel, Residency};
//!
//! let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models"));
//! let source = Decoder::open(&models.join("stories260k"), &Device::flex(), Residency::Streamed)?;
//! let recipe = Recipe { qk_mqa_dim: Some(8), kv_lora_rank: Some(28), ..Recipe::default() };
//! let plan = Plan::new(source.config(), &recipe)?;
//! assert_eq!(plan.cache_numbers(), (64, 36));
//!
//! let rows = load(&DatasetSource::Path(models.join("stories")), Split::Train, &Default::default())?.rows;
//! let tokenizer = TextTokenizer::from_folder(&models.join("stories260k"))?;
//! let text = sample(&rows, &tokenizer, &SampleSpec { samples: 8, sequence: 64, seed: 42 })?.tokens;
//! let folder = tempfile::tempdir()?;
//! let save_path = folder.path().join("converted");
//! let request = Request {
//!     plan: &plan,
//!     source: &source,
//!     calibration: &text,
//!     questions: None,
//!     evaluation: None,
//!     save_path: &save_path,
//!     replace: false,
//!     extra_files: &[],
//!     card: None,
//! };
//! convert(&request, &mut Silent)?;
//! assert!(Decoder::open(&save_path, &Device::flex(), Residency::Streamed).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod conversion;
mod execute;
mod heal;
mod layer;
mod memory;
mod output;
mod own_text;
mod setup;
mod solve;
mod spec;
mod sweep;
mod text;

pub use {transmla_calib, transmla_core, transmla_eval};

pub use conversion::{Conversion, PlannedConversion};
pub use execute::{Entry, Request, Requests, convert, convert_all};
pub use heal::plan::{Heal, HealWork, PlannedHeal};
pub use heal::request::{HealRequest, Words};
pub use heal::run::heal;
pub use layer::key_norm::LinearKeys;
pub use layer::stream::CalibrationStream;
pub use memory::{eval_options, parameters, residency, scoring_options};
pub use output::card::{ModelCard, model_card};
pub use output::gguf::{GgufOptions, Quantization, check_gguf, write_gguf};
pub use output::manifest::{LARGEST_RECIPE, RECIPE_FILE, check_replaceable};
pub use output::model_files::ModelFiles;
pub use output::names::{ModelName, resolve_paths};
pub use output::room::{DiskNeeds, check_space};
pub use output::verify::{Check, SavedForm, WithoutLatentNorms, check_saved};
pub use setup::Setup;
pub use solve::evaluation::{Evaluation, Questions};
pub use solve::probe::Probe;
pub use solve::published::decouple::{Decoupled, decouple};
pub use solve::published::decoupled::DecoupledModel;
pub use solve::work::{StageWork, TextSize, Work};
pub use solve::{
    conversion_work, default_noise, default_refinement, describe_method, has_refinement, peak_bytes, refinement,
};
pub use spec::budget::{default_shapes, shapes_for_budget};
pub use spec::calibration_text::CalibrationText;
pub use spec::engine::GGUF_FILE;
pub use spec::error::{ConvertError, TextNameError};
pub use spec::figures::LayerFigures;
pub use spec::groups::group_source;
pub use spec::healing::{Healing, HealingError, Trained};
pub use spec::healing_report::{Distance, HealCheck, HealReport, HealStep};
pub use spec::hint::Hint;
pub use spec::options::{Engine, FileFormat, FreqFold, FreqFoldError, KeyNorm, MethodName, Style};
pub use spec::plan::Plan;
pub use spec::purpose::TextPurpose;
pub use spec::recipe::{EvaluationText, RECIPE_FIELDS, Recipe, RecipeError, WrittenFiles};
pub use spec::recipe_tasks::RecipeTasks;
pub use spec::report::{Finished, LayerReport, Observer, Report, SavedLayer, Silent, Stage, Warning};
pub use spec::support::{approximation, auto_obstacle, stock_obstacle};
pub use sweep::{PlannedSweep, Sweep, has_weights};
pub use text::corpus::{Corpus, TextReader, check_length, default_window, read_tokenizer, warn_of_long_windows};
pub use text::default_text::TextDefaults;
pub use text::mix::TextMix;
pub use text::plan::TextPlan;
pub use text::source::{LocalText, TextSource};
pub use text::tasks::TaskPlan;
