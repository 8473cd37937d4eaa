//! The conversion of grouped-query into multi-head latent attention: plan, validate, execute.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `options`, `recipe` | [`ConvertOptions`]: what a user chooses; [`Recipe`]: the same as a file |
//! | `plan`, `budget` | [`Plan`]: everything that follows from config and headers; [`shapes_for_budget`] |
//! | `stream` | calibration text through a model, layer by layer |
//! | `decouple`, `decoupled` | the first pass: [`decouple()`] RoPE; [`DecoupledModel`] in between |
//! | `key_norm` | keys that are normalised, fitted by a linear map |
//! | `ridge` | least squares that hold weights to what they were |
//! | `support`, `engine` | what is exact, what stock DeepSeek code can express, and what each program runs |
//! | `compress`, `assemble` | the factorisation, and DeepSeek's tensors from it |
//! | `latent_norm`, `input_scale` | norms of latents that stock code applies, of sizes that every number format holds |
//! | `constant_entry` | biases where stock code has them |
//! | `second_pass` | the second pass: every layer factorised and written |
//! | `loss_gradients`, `example` | the coherent method's data: what the loss notices, what layers are given and should give |
//! | `coherent`, `output_regression` | the coherent method for one layer, in closed form |
//! | `refine`, `sequential` | a layer's reconstruction by steps; all layers in order |
//! | `kept_layers` | refined layers on disk, for a conversion that is ended and goes on |
//! | `manifest` | the files that a conversion has written, which alone it replaces |
//! | `modelling`, `card` | modelling code for stock transformers, and the model card |
//! | `convert`, `sweep` | [`convert()`]: passes, evaluations, and files; [`sweep()`]: the same for several shapes |
//! | `gguf` | a saved model as one file for llama.cpp |
//! | `verify`, `lost_rows` | a saved model's files against each other, and its function without latent norms |
//! | `report`, `error` | progress, results, errors |
//!
//! ```
//! use burn::tensor::Device;
//! use std::path::Path;
//! use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, load, sample};
//! use transmla_convert::{ConvertOptions, Plan, Request, Silent, convert};
//! use transmla_core::{Decoder, LayeredModel, Residency};
//!
//! let models = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models"));
//! let source = Decoder::open(&models.join("stories260k"), &Device::flex(), Residency::Streamed)?;
//! let options = ConvertOptions { qk_mqa_dim: 8, kv_lora_rank: 28, ..ConvertOptions::default() };
//! let plan = Plan::new(source.config(), &options)?;
//! assert_eq!(plan.cache_numbers(), (64, 36));
//!
//! let rows = load(&DatasetSource::Path(models.join("stories")), Split::Train, &Default::default())?.rows;
//! let tokenizer = TextTokenizer::from_folder(&models.join("stories260k"))?;
//! let text = sample(&rows, &tokenizer, &SampleSpec { samples: 8, sequence: 64, seed: 42 })?.tokens;
//! let folder = tempfile::tempdir()?;
//! let target = folder.path().join("converted");
//! let request = Request {
//!     plan: &plan,
//!     source: &source,
//!     calibration: &text,
//!     evaluation: None,
//!     target: &target,
//!     replace: false,
//!     extra_files: &[],
//! };
//! convert(&request, &mut Silent)?;
//! assert!(Decoder::open(&target, &Device::flex(), Residency::Streamed).is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod assemble;
mod budget;
mod card;
mod coherent;
mod compress;
mod constant_entry;
mod convert;
mod decouple;
mod decoupled;
mod engine;
mod error;
mod example;
mod gguf;
mod input_scale;
mod kept_layers;
mod key_norm;
mod latent_norm;
mod loss_gradients;
mod lost_rows;
mod manifest;
mod modelling;
mod options;
mod output_regression;
mod plan;
mod recipe;
mod refine;
mod report;
mod ridge;
mod second_pass;
mod sequential;
mod stream;
mod support;
mod sweep;
mod verify;
mod weights;

pub use budget::shapes_for_budget;
pub use card::{ModelCard, model_card};
pub use convert::{Evaluation, Request, convert};
pub use decouple::{Decoupled, decouple};
pub use decoupled::DecoupledModel;
pub use engine::GGUF_FILE;
pub use error::ConvertError;
pub use gguf::{check_gguf, write_gguf};
pub use key_norm::FittedKeys;
pub use manifest::{LARGEST_RECIPE, RECIPE_FILE, check_replaceable, check_space};
pub use options::{ConvertOptions, Engine, FileFormat, FreqFold, Method, Style};
pub use plan::Plan;
pub use recipe::{Recipe, RecipeError};
pub use report::{KeptLayer, LayerReport, Observer, Report, Silent, Stage};
pub use stream::CalibrationStream;
pub use support::{approximation, auto_obstacle, stock_obstacle};
pub use sweep::{Sweep, Target, sweep};
pub use verify::{Check, SavedForm, WithoutLatentNorms, check_saved};
