//! Joint PCA of keys and values of realistic width.

use std::hint::black_box;

use faer::Mat;
use transmla_lowrank::{JointPca, KvFactors, KvInput, LowRankError, joint_pca};

use crate::case::{Case, Timed, within};
use crate::catalogue::Heads;
use crate::numbers::Numbers;

pub(crate) fn build(heads: Heads, rope_dim: usize, rank: usize) -> Box<dyn Case> {
    let mut numbers = Numbers::new(8);
    let (width, nope) = (heads.key * heads.width, heads.key * heads.width - rope_dim);
    let shared: Vec<Mat<f64>> = (0..heads.key).map(|_| numbers.matrix(heads.width, nope)).collect();
    Box::new(LowRank {
        nope_keys: numbers.matrix(nope, heads.hidden),
        values: numbers.matrix(width, heads.hidden),
        key_up: (0..heads.query)
            .map(|head| shared[head * heads.key / heads.query].clone())
            .collect(),
        value_head_dim: heads.width,
        moment: numbers.moment(heads.hidden),
        rank,
    })
}

struct LowRank {
    nope_keys: Mat<f64>,
    values: Mat<f64>,
    key_up: Vec<Mat<f64>>,
    value_head_dim: usize,
    moment: Mat<f64>,
    rank: usize,
}

impl LowRank {
    fn factorise(&self, rank: usize) -> Result<KvFactors, LowRankError> {
        let input = KvInput {
            nope_keys: self.nope_keys.as_ref(),
            values: self.values.as_ref(),
            key_up: &self.key_up,
            value_head_dim: self.value_head_dim,
        };
        let spec = JointPca {
            rank,
            balance: 1.0,
            skipped_values: 0,
            damping: 0.01,
        };
        joint_pca(&input, self.moment.as_ref(), &spec)
    }
}

impl Case for LowRank {
    /// At full rank every head's keys and values are reproduced.
    fn check(&self) -> anyhow::Result<()> {
        let full = self.nope_keys.nrows() + self.values.nrows();
        let factors = self.factorise(full)?;
        let heads = self.key_up.len();
        for head in [0, heads - 1] {
            let expected = &self.key_up[head] * &self.nope_keys;
            let difference = &factors.key_up[head] * &factors.down - &expected;
            within("keys at full rank", difference.norm_max(), expected.norm_max(), 1e-9)?;
            let value_heads = self.values.nrows() / self.value_head_dim;
            let first = head * value_heads / heads * self.value_head_dim;
            let expected = self.values.subrows(first, self.value_head_dim);
            let difference = &factors.value_up[head] * &factors.down - expected;
            within("values at full rank", difference.norm_max(), expected.norm_max(), 1e-9)?;
        }
        Ok(())
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| {
            black_box(self.factorise(self.rank)).expect("it was checked");
        })
    }
}
