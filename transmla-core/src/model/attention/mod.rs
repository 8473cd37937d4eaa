//! The three kinds of attention: grouped-query, RoPE-decoupled and latent.

mod decoupled;
pub(super) mod grouped;
pub(super) mod heads;
mod key_scale;
pub(super) mod kind;
pub(super) mod latent;
mod normed;
mod rope_order;

pub use decoupled::{DecoupledAttention, DecoupledQueries};
pub use grouped::GroupedAttention;
pub use heads::Projected;
pub use key_scale::KeyScale;
pub use kind::Attention;
pub use latent::{LatentAttention, QueryProjection};
pub use normed::NormedQueries;
