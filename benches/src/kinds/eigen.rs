//! All eigenvectors of a second moment, as the conversion computes them.

use std::hint::black_box;

use faer::{Mat, Scale};
use transmla_lowrank::{PrincipalComponents, principal_components};

use crate::case::{Case, Timed, within};
use crate::numbers::Numbers;

pub(crate) fn build(size: usize) -> Box<dyn Case> {
    Box::new(Eigen {
        moment: Numbers::new(9).moment(size),
    })
}

struct Eigen {
    moment: Mat<f64>,
}

impl Eigen {
    fn solve(&self) -> PrincipalComponents {
        principal_components(self.moment.as_ref(), self.moment.nrows(), 0.0)
            .expect("the moment is symmetric and finite")
    }
}

impl Case for Eigen {
    /// The vectors are orthonormal, and with the values they give the moment back.
    fn check(&self) -> anyhow::Result<()> {
        let size = self.moment.nrows();
        let PrincipalComponents { vectors, values, .. } = self.solve();
        let difference = vectors.transpose() * &vectors - Mat::<f64>::identity(size, size);
        within("Uᵀ U", difference.norm_max(), 1.0, 1e-11)?;
        let mut scaled = vectors.clone();
        for (mut column, value) in scaled.col_iter_mut().zip(&values) {
            column *= Scale(*value);
        }
        let difference = scaled * vectors.transpose() - &self.moment;
        within("U Λ Uᵀ", difference.norm_max(), values[0], 1e-11)
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(self.solve());
        })
    }
}
