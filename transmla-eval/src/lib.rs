//! Perplexity of language models and the divergence between two of them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `perplexity` | [`perplexity()`]: the published protocol, mean negative log-likelihood of windows of equal length |
//! | `divergence` | [`divergence()`]: how far the predictions of a second model are from those of a first |
//! | `positions` | [`perplexity_by_position()`], [`divergence_by_position()`]: both in ranges of a window's positions |
//! | `likelihood` | [`log_likelihoods()`]: log-likelihoods of continuations, what they have in common computed once |
//! | `forward` | [`EvalOptions`]: running windows through a model, layer by layer |
//! | `tasks` | tasks with questions and known answers, as lm-evaluation-harness scores them (feature `tasks`) |
//! | `observer` | [`Observer`]: progress |
//! | `error` | [`EvalError`] |
//!
//! All of them work on any [`LayeredModel`](transmla_core::LayeredModel) and go through it layer by layer: a streamed model
//! reads each layer once per group of windows and never holds more than one.
//!
//! ```
//! use std::path::Path;
//!
//! use transmla_core::burn::tensor::Device;
//! use transmla_core::{Decoder, Residency, TokenBatch};
//! use transmla_eval::{EvalOptions, Silent, divergence, perplexity};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models/stories260k"));
//! let model = Decoder::open(folder, &Device::flex(), Residency::Streamed)?;
//! // How the test split of the stories begins.
//! let ids = vec![1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 268, 315, 418, 395, 410, 459, 423, 310, 263, 415];
//! let text = TokenBatch::from_ids(ids, 1, 20).unwrap();
//!
//! let result = perplexity(&model, &text, &EvalOptions::default(), &mut Silent)?;
//! assert!(result.perplexity < 20.0); // far below the 512 of a guess among all tokens
//! let same = divergence(&model, &model, &text, &EvalOptions::default(), &mut Silent)?;
//! assert_eq!((same.kl, same.top1_agreement), (0.0, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod divergence;
mod error;
mod forward;
mod likelihood;
mod observer;
mod perplexity;
mod positions;
mod standard_error;
#[cfg(feature = "tasks")]
pub mod tasks;

// What models and batches of this crate's signatures come from.
#[cfg(feature = "tasks")]
pub use transmla_calib;
pub use transmla_core;

pub use divergence::{Divergence, divergence, divergence_by_position};
pub use error::EvalError;
pub use forward::{EvalOptions, LOGITS_AT_ONCE};
pub use likelihood::{Likelihood, Request, ScoringOptions, log_likelihoods};
pub use observer::{Observer, Silent};
pub use perplexity::{Perplexity, perplexity, perplexity_by_position};
pub use positions::{PositionDivergence, PositionPerplexity, position_ranges};
