//! Text to calibrate and evaluate language models on, and statistics of their layers.
//!
//! | module | feature | what it holds |
//! | --- | --- | --- |
//! | `text` | `text` | [`load`], [`TextTokenizer`], [`sample()`], [`evaluation_windows`]: datasets, tokenizers, batches of token ids |
//! | `statistics` | `statistics` | [`SecondMoment`], [`output_gradients`], [`GradientPass`], [`Sensitivity`]: statistics of a model's layers |
//! | `error` | `text` | [`CalibError`] |
//!
//! Both features are on by default, as is `hub`, which downloads the datasets that are known by name. Crates whose types are in
//! public signatures are re-exported.
//!
//! # Example
//!
//! Samples to calibrate on and windows to evaluate on, from a folder with a train and a test split:
//!
//! ```
//! use std::path::Path;
//!
//! use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, evaluation_windows, load, sample};
//! use transmla_checkpoint::hub::HubOptions;
//!
//! # fn main() -> Result<(), transmla_calib::CalibError> {
//! let models = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models");
//! let tokenizer = TextTokenizer::from_folder(&models.join("stories260k"))?;
//! let source = DatasetSource::Path(models.join("stories"));
//!
//! let train = load(&source, Split::Train, &HubOptions::default())?;
//! let spec = SampleSpec { samples: 8, sequence: 64, seed: 42 };
//! let sampled = sample(&train.rows, &tokenizer, &spec)?;
//! assert_eq!((sampled.tokens.batch(), sampled.tokens.sequence()), (8, 64));
//!
//! let test = load(&source, Split::Test, &HubOptions::default())?;
//! assert!(test.origin.ends_with("column text, test split"));
//! let windows = evaluation_windows(&test.rows, &tokenizer, 512, None)?;
//! assert_eq!(windows.batch(), 58);
//! # Ok(())
//! # }
//! ```

#![warn(missing_docs)]

#[cfg(feature = "text")]
mod error;
#[cfg(feature = "statistics")]
mod statistics;
#[cfg(feature = "text")]
mod text;

#[cfg(feature = "text")]
pub use error::CalibError;
#[cfg(feature = "statistics")]
pub use statistics::{AttentionGradients, GradientPass, SecondMoment, Sensitivity, output_gradients};
#[cfg(feature = "text")]
pub use text::{
    ChatMessage, ChatTemplate, DEFAULT_TEMPLATE, DatasetSource, Documents, NamedTemplate, Openings, ReadOptions,
    Record, RecordSource, RecordValue, SampleSpec, Sampled, Split, TextRows, TextStream, TextTokenizer, chat_templates,
    divide_samples, evaluation_windows, evaluation_windows_from, interleave, is_contained, load, load_with, sample,
    sample_with_noise, split_holdout,
};
#[cfg(feature = "text")]
pub use transmla_checkpoint;
#[cfg(feature = "statistics")]
pub use transmla_core;
#[cfg(feature = "statistics")]
pub use transmla_lowrank::faer;
