//! Low-rank queries.

use faer::{Mat, MatRef};

use crate::check;
use crate::error::LowRankError;
use crate::moment::{self, quadratic_form};
use crate::pca;

/// Low-rank queries: `latent = down·x`, `queries = up·latent`.
#[derive(Debug, Clone)]
pub struct QueryFactors {
    /// `[s, D]`: from inputs to the latent (`q_a_proj`).
    pub down: Mat<f64>,
    /// `[H·d, s]`: from the latent to the queries of all heads, with orthonormal columns (`q_b_proj` before its rotary rows).
    pub up: Mat<f64>,
    /// Share of the queries' energy that the latent keeps, in `0..=1`.
    pub kept_energy: f64,
}

/// Factorises the queries of all heads by their first `rank` principal components.
///
/// With `R` the leading eigenvectors of the queries' second moment, `down = Rᵀ·queries` and `up = R`. At `rank = H·d` the
/// product `up·down` equals `queries`.
///
/// # Shapes
///
/// `queries`: `[H·d, D]`; `moment`: `[D, D]`, the inputs' second moment up to a factor.
///
/// # Errors
///
/// [`LowRankError::Rank`] unless `1 <= rank <= H·d`, [`LowRankError::Damping`] for a negative damping or a NaN,
/// [`LowRankError::Shape`], [`LowRankError::Empty`] or [`LowRankError::NotFinite`] for bad matrices,
/// [`LowRankError::Eigen`] if the solver fails.
///
/// # Source
///
/// DeepSeek-V2, arXiv 2405.04434, low-rank queries; TransMLA, arXiv 2502.07864, for fitting them by PCA.
pub fn query_pca(
    queries: MatRef<'_, f64>,
    moment: MatRef<'_, f64>,
    rank: usize,
    damping: f64,
) -> Result<QueryFactors, LowRankError> {
    if queries.nrows() == 0 {
        return Err(LowRankError::Empty {
            what: "the query weights",
        });
    }
    // Checked before the products, which take most of the time.
    check::rank("query rank", rank, queries.nrows())?;
    check::damping(damping)?;
    let components = pca::decompose(quadratic_form(queries, moment)?, rank, damping)?;
    let down = moment::product(components.vectors.transpose(), queries);
    let kept_energy = components.kept_energy();
    Ok(QueryFactors {
        down,
        up: components.vectors,
        kept_energy,
    })
}
