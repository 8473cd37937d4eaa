//! Perplexity of language models and the divergence between two of them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`perplexity`] | the published protocol: windows of equal length, mean negative log-likelihood |
//! | [`divergence`] | how far a second model's predictions are from the first's |
//!
//! Both are written against [`transmla_core::LayeredModel`] and go through the model layer by layer, so that a streamed
//! model reads each layer once per group of windows and never holds more than one.
//!
//! ```
//! use burn::tensor::Device;
//! use std::path::Path;
//! use transmla_core::{Decoder, Residency, TokenBatch};
//! use transmla_eval::{EvalOptions, divergence, perplexity};
//!
//! let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../transmla-cli/models/stories260k"));
//! let model = Decoder::open(folder, &Device::flex(), Residency::Streamed)?;
//! // How the test split of the stories begins.
//! let ids = vec![1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 268, 315, 418, 395, 410, 459, 423, 310, 263, 415];
//! let text = TokenBatch::from_ids(ids, 1, 20).unwrap();
//!
//! let result = perplexity(&model, &text, &EvalOptions::default(), &mut |_, _| {})?;
//! assert!(result.perplexity < 20.0); // far below the 512 of a guess among all tokens
//! let same = divergence(&model, &model, &text, &EvalOptions::default(), &mut |_, _| {})?;
//! assert_eq!((same.kl, same.top1_agreement), (0.0, 1.0));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![warn(missing_docs)]

mod divergence;
mod error;
mod forward;
mod perplexity;

pub use divergence::{Divergence, divergence};
pub use error::EvalError;
pub use forward::{EvalOptions, LOGITS_AT_ONCE};
pub use perplexity::{Perplexity, perplexity};
