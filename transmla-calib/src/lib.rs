//! Calibration and evaluation text: datasets, tokenizers, samples and windows.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `dataset` | [`load`]: rows of text by dataset name or path, with [`TextRows::origin`] saying where they are from |
//! | `named` | the datasets known by name and where the hub keeps them |
//! | `split`, `folder` | [`Split`], and how its files are found in a folder in hub layout |
//! | `file`, `parquet_rows`, `json_rows`, `json_document`, `plain_rows` | reading parquet, JSON and plain text |
//! | `column`, `chat`, `rows` | which column is the text; chats as text; rows within limits |
//! | `open`, `unicode` | regular files, decompressed and as UTF-8, whatever they are |
//! | `contain`, `parquet_guard`, `thrift` | decoders of other crates that panic, or ask for too much memory, on damaged files |
//! | `tokenizer`, `tokenizer_file`, `stream` | [`TextTokenizer`], and [`TextStream`] for ids that come one at a time |
//! | `pieces` | tokenising long texts in bounded memory |
//! | `sample`, `holdout` | [`sample()`]: random calibration samples; [`split_holdout`] sets some aside |
//! | `moment` | [`SecondMoment`]: the one statistic of a layer's inputs |
//! | `gradient` | [`output_gradients`]: what the loss notices of each layer's attention output |
//! | `sensitivity` | [`Sensitivity`]: which scores, queries and values the loss notices |
//! | `noise` | [`sample_with_noise`]: random words in some samples, so that text unlike the calibration's survives |
//! | `mix` | [`divide_samples`], [`interleave`]: samples from several texts |
//! | `windows` | [`evaluation_windows`]: the text that perplexity is measured on |
//!
//! # Example
//!
//! Samples to calibrate on and windows to evaluate on, from a folder with a train and a test split:
//!
//! ```
//! use std::path::Path;
//!
//! use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, evaluation_windows, load, sample};
//! use transmla_core::hub::HubOptions;
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

mod chat;
mod column;
mod contain;
mod dataset;
mod error;
mod file;
mod folder;
mod gradient;
mod holdout;
mod json_document;
mod json_rows;
mod mix;
mod moment;
mod named;
mod noise;
mod open;
mod parquet_guard;
mod parquet_rows;
mod pieces;
mod plain_rows;
mod rows;
mod sample;
mod sensitivity;
mod split;
mod stream;
mod thrift;
mod tokenizer;
mod tokenizer_file;
mod unicode;
mod windows;

pub use contain::is_contained;
pub use dataset::{DatasetSource, TextRows, load, load_column};
pub use error::CalibError;
pub use gradient::output_gradients;
pub use holdout::split_holdout;
pub use mix::{divide_samples, interleave};
pub use moment::SecondMoment;
pub use noise::sample_with_noise;
pub use sample::{SampleSpec, Sampled, sample};
pub use sensitivity::Sensitivity;
pub use split::Split;
pub use stream::TextStream;
pub use tokenizer::TextTokenizer;
pub use windows::evaluation_windows;
