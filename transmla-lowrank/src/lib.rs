//! Low-rank factorisation of keys, values and queries for multi-head latent attention.
//!
//! Multi-head latent attention caches one short latent per token in place of keys and values. Given keys without position,
//! this crate finds the latent with the least error under the second moment of the layer's inputs: it balances keys against
//! values, takes their joint principal components and absorbs the remaining factors into the up-projections of the heads
//! (TransMLA, arXiv 2502.07864, section on balanced key-value PCA). It works on matrices alone, without files, model names
//! or tensors of a framework.
//!
//! | module | contents |
//! | --- | --- |
//! | [`moment`] | [`quadratic_form`]: the second moment of any linear map of the inputs |
//! | [`pca`] | [`principal_components`] of a second moment: eigenvectors with fixed signs |
//! | [`balance`] | [`balance_ratio`]: the mean norm of keys over that of values |
//! | [`input`] | [`KvInput`]: the weights that are factorised |
//! | [`joint`] | [`joint_pca`]: one latent for keys and values |
//! | [`metric`] | [`metric_pca`]: the same in an [`OutputMetric`], which weighs errors by their effect on the attention output |
//! | [`query`] | [`query_pca`]: one latent for the queries of all heads |
//!
//! # Conventions
//!
//! Weights are `[out, in]`; a bias may be an additional column. The *moment* `C`, `[D, D]`, is the sum of `x xᵀ` over
//! calibration inputs `x`, or any multiple of it. All numbers are `f64`.
//!
//! # Example
//!
//! The keys and values of two heads, nearly in one direction each, compressed from 8 rows to a latent of 3:
//!
//! ```
//! use transmla_lowrank::faer::Mat;
//! use transmla_lowrank::{JointPca, KvInput, joint_pca};
//!
//! let keys = Mat::from_fn(4, 6, |i, j| (i + 1) as f64 + 1e-3 * ((i * 6 + j) as f64).sin());
//! let values = Mat::from_fn(4, 6, |i, j| ((i % 2) * j) as f64 + 1e-3 * ((i + j) as f64).cos());
//! // Each of the two heads has two of the four key rows.
//! let rows = |first: usize| Mat::from_fn(2, 4, |i, j| if first + i == j { 1.0 } else { 0.0 });
//! let key_up = [rows(0), rows(2)];
//!
//! let input = KvInput { nope_keys: keys.as_ref(), values: values.as_ref(), key_up: &key_up, value_head_dim: 2 };
//! let spec = JointPca { rank: 3, balance: 1.0, skipped_values: 0, damping: 0.01 };
//! let factors = joint_pca(&input, Mat::<f64>::identity(6, 6).as_ref(), &spec)?;
//!
//! assert_eq!((factors.down.nrows(), factors.kv_b().nrows()), (3, 2 * (2 + 2)));
//! assert!(factors.kept_energy > 0.999);
//! let error = &factors.key_up[1] * &factors.down - keys.subrows(2, 2);
//! assert!(error.norm_max() < 0.02);
//! # Ok::<(), transmla_lowrank::LowRankError>(())
//! ```

#![warn(missing_docs)]

pub mod balance;
mod check;
mod error;
pub mod input;
pub mod joint;
pub mod metric;
pub mod moment;
pub mod pca;
pub mod query;

pub use balance::balance_ratio;
pub use error::LowRankError;
pub use faer;
pub use input::KvInput;
pub use joint::{JointPca, KvFactors, joint_pca};
pub use metric::{OutputMetric, metric_pca};
pub use moment::quadratic_form;
pub use pca::{PrincipalComponents, principal_components};
pub use query::{QueryFactors, query_pca};
