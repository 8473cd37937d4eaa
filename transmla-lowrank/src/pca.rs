//! Principal components of a second moment.

use faer::{Mat, MatRef, Side};

use crate::check;
use crate::error::LowRankError;

/// The leading eigenvectors of a second moment, and all its eigenvalues.
#[derive(Debug, Clone)]
pub struct PrincipalComponents {
    /// `[n, r]`: orthonormal columns by descending eigenvalue; the entry of largest magnitude of each is positive.
    pub vectors: Mat<f64>,
    /// All `n` eigenvalues of the damped moment, descending: those of the moment itself plus [`Self::shift`].
    pub values: Vec<f64>,
    /// The amount that damping adds to every eigenvalue, `damping · mean(diag)`.
    pub shift: f64,
}

impl PrincipalComponents {
    /// All `n` eigenvalues of the undamped moment, descending, none negative.
    pub fn spectrum(&self) -> Vec<f64> {
        // Rounding can make the eigenvalues of a rank-deficient moment slightly negative.
        self.values.iter().map(|value| (value - self.shift).max(0.0)).collect()
    }

    /// Share of the undamped moment's trace that the `r` components keep, in `0..=1`; 1 for a moment of zero.
    pub fn kept_energy(&self) -> f64 {
        let energy = |values: &[f64]| values.iter().map(|value| (value - self.shift).max(0.0)).sum::<f64>();
        let total = energy(&self.values);
        if total > 0.0 {
            energy(&self.values[..self.vectors.ncols()]) / total
        } else {
            1.0
        }
    }
}

/// The first `rank` eigenvectors of `moment + damping · mean(diag(moment)) · I`.
///
/// The sign of each eigenvector is fixed: its entry of largest magnitude is positive. Damping shifts all eigenvalues by the
/// same amount: it is part of [`PrincipalComponents::values`], but not of the eigenvectors or of
/// [`PrincipalComponents::kept_energy`].
///
/// # Shapes
///
/// `moment`: `[n, n]`, symmetric up to rounding (the lower triangle is read); result: `n` values, vectors `[n, rank]`.
///
/// # Errors
///
/// [`LowRankError::Rank`] unless `1 <= rank <= n`, [`LowRankError::Damping`] for a negative damping or a NaN,
/// [`LowRankError::Shape`] or [`LowRankError::NotFinite`] for a bad moment, [`LowRankError::Eigen`] if the solver
/// fails.
pub fn principal_components(
    moment: MatRef<'_, f64>,
    rank: usize,
    damping: f64,
) -> Result<PrincipalComponents, LowRankError> {
    check::square("the moment", moment)?;
    if moment.nrows() == 0 {
        return Err(LowRankError::Empty { what: "the moment" });
    }
    check::rank("rank", rank, moment.nrows())?;
    check::damping(damping)?;
    check::finite("the moment", moment)?;
    decompose(moment.to_owned(), rank, damping)
}

/// [`principal_components`] of a checked moment, of which only the lower triangle is read.
pub(crate) fn decompose(mut moment: Mat<f64>, rank: usize, damping: f64) -> Result<PrincipalComponents, LowRankError> {
    let size = moment.nrows();
    let shift = damping * (0..size).map(|i| moment[(i, i)]).sum::<f64>() / size as f64;
    for i in 0..size {
        moment[(i, i)] += shift;
    }
    // Products of finite weights can overflow, and the solver expects finite numbers.
    check::finite("the second moment of the rows", moment.as_ref())?;
    let eigen = moment
        .self_adjoint_eigen(Side::Lower)
        .map_err(|_| LowRankError::Eigen { size })?;
    let mut vectors = eigen.U().reverse_cols().subcols(0, rank).to_owned();
    if !vectors.is_all_finite() {
        return Err(LowRankError::Eigen { size });
    }
    for column in vectors.col_iter_mut() {
        let largest = column
            .as_ref()
            .iter()
            .fold(0.0_f64, |best, &x| if x.abs() > best.abs() { x } else { best });
        if largest < 0.0 {
            column.iter_mut().for_each(|x| *x = -*x);
        }
    }
    let values = eigen.S().column_vector().iter().rev().copied().collect();
    Ok(PrincipalComponents { vectors, values, shift })
}
