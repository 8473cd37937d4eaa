//! RoPE decoupling: splitting keys with rotary position into one shared rotary key and keys without position.
//!
//! Multi-head latent attention encodes position in a single short key that all heads share, where a grouped-query model has
//! one rotary key per key head. This crate finds the orthogonal change of basis (RoRoPE with FreqFold, TransMLA,
//! arXiv 2502.07864, section on RoPE decoupling) that moves as much of the keys' energy as possible into the shared key. It
//! works on matrices alone, without files, model names or tensors of a framework.
//!
//! | module | contents |
//! | --- | --- |
//! | [`shape`] | [`HeadShape`]: heads, head width, rotary pairs |
//! | [`fold`] | [`FoldSpec`]: the number of adjacent frequencies that share a rotation |
//! | [`mod@rororope`] | [`rororope()`]: from the keys' second moment to a [`Decoupling`] |
//! | [`mod@coherent`] | [`coherent()`]: the same by the effect on the attention output, given an [`AttentionProfile`] |
//! | [`decoupling`] | [`Decoupling`]: the split, applied to key and query weights |
//! | [`energy`] | [`slot_energy()`]: which pairs the slots of a rotary key serve |
//!
//! # Conventions
//!
//! Keys of all heads are stacked: row `g·d + j` is the real part and row `g·d + j + d/2` the imaginary part of pair
//! `j` of key head `g` (half-split layout, as in Llama checkpoints of Hugging Face). Weights are `[out, in]`; a bias may be an
//! additional column. All numbers are `f64`.
//!
//! # Example
//!
//! Two key heads of four dimensions get one shared rotary key of two. At distance 0 the split changes no score:
//!
//! ```
//! use transmla_rope::faer::Mat;
//! use transmla_rope::{FoldSpec, HeadShape, rororope};
//!
//! let shape = HeadShape::new(2, 2, 4)?;
//! let keys = Mat::from_fn(8, 3, |row, column| ((row * 3 + column) as f64).sin());
//! let queries = Mat::from_fn(8, 3, |row, column| ((row + 5 * column) as f64).cos());
//!
//! let fold = FoldSpec::new(shape, 2, 2)?;
//! let decoupling = rororope((&keys * keys.transpose()).as_ref(), shape, &fold)?;
//! let split = decoupling.split_keys(keys.as_ref())?;
//! assert_eq!((split.rope.nrows(), split.nope.nrows()), (2, 6));
//!
//! // The score of input 0 (as query) with input 1 (as key) in each head, before and after.
//! let rope_queries = decoupling.rope_queries(queries.as_ref())?;
//! let nope_keys = decoupling.expand_nope_grouped(split.nope.as_ref())?;
//! for head in 0..2 {
//!     let rows = 4 * head..4 * head + 4;
//!     let before: f64 = rows.clone().map(|i| queries[(i, 0)] * keys[(i, 1)]).sum();
//!     let nope: f64 = rows.map(|i| queries[(i, 0)] * nope_keys[(i, 1)]).sum();
//!     let rope: f64 = (0..2).map(|i| rope_queries[(2 * head + i, 0)] * split.rope[(i, 1)]).sum();
//!     assert!((before - (nope + rope)).abs() < 1e-12);
//! }
//! # Ok::<(), transmla_rope::RopeError>(())
//! ```

#![warn(missing_docs)]

mod check;
pub mod coherent;
pub mod decoupling;
pub mod energy;
mod error;
pub mod fold;
pub mod rororope;
pub mod shape;

pub use coherent::{AttentionProfile, CoherentSplit, Eligibility, FittedQueries, coherent, fit_queries};
pub use decoupling::{Decoupling, SplitKeys};
pub use energy::slot_energy;
pub use error::RopeError;
pub use faer;
pub use fold::FoldSpec;
pub use rororope::{DAMPING, KeyRotation, rororope};
pub use shape::HeadShape;
