//! RoPE decoupling of keys of realistic width.

use std::hint::black_box;

use faer::{Mat, concat};
use transmla_rope::{FoldSpec, HeadShape, rororope};

use crate::case::{Case, Timed, within};
use crate::catalogue::Heads;
use crate::numbers::Numbers;

pub(crate) fn build(heads: Heads, freqfold: usize, rope_dim: usize) -> Box<dyn Case> {
    let shape = HeadShape::new(heads.query, heads.key, heads.width).expect("the catalogue's heads are valid");
    Box::new(Rope {
        shape,
        fold: FoldSpec::new(shape, rope_dim, freqfold).expect("the catalogue's folding is valid"),
        moment: Numbers::new(7).moment(shape.key_width()),
    })
}

struct Rope {
    shape: HeadShape,
    fold: FoldSpec,
    moment: Mat<f64>,
}

impl Case for Rope {
    /// Rotary key and keys without position together form an orthogonal basis.
    fn check(&self) -> anyhow::Result<()> {
        let split = rororope(self.moment.as_ref(), self.shape, &self.fold)?;
        let basis = concat![[split.key_rope], [split.key_nope]];
        let width = self.shape.key_width();
        let difference = &basis * basis.transpose() - Mat::<f64>::identity(width, width);
        within("U Uᵀ", difference.norm_max(), 1.0, 1e-10)
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(rororope(self.moment.as_ref(), self.shape, &self.fold)).expect("it was checked");
        })
    }
}
