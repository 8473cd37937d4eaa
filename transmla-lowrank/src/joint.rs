//! Joint PCA of keys without position and values.

use faer::linalg::matmul::matmul;
use faer::{Accum, Mat, MatRef, get_global_parallelism};

use crate::balance;
use crate::error::LowRankError;
use crate::input::KvInput;
use crate::moment;
use crate::pca;

/// Options of [`joint_pca`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct JointPca {
    /// Width of the latent, `r`, from 1 to `N + G·d_v`.
    pub rank: usize,
    /// Ratio of the keys' mean norm to the values' after balancing: 1 weighs both alike, more favours keys; see
    /// [`balance_ratio`](crate::balance_ratio).
    pub balance: f64,
    /// Number of value dimensions left out of the balance: 0, or `d_r` as in the published code.
    pub skipped_values: usize,
    /// Multiple of the mean diagonal entry that is added to the diagonal of the joint moment; 0.01 in the published code.
    pub damping: f64,
}

/// Low-rank keys and values: `latent = down·x`, and per head `key = key_up·latent`, `value = value_up·latent`.
#[derive(Debug, Clone)]
pub struct KvFactors {
    /// `[r, D]`: from inputs to the latent (`kv_a_proj_with_mqa` without its rotary rows).
    pub down: Mat<f64>,
    /// One `[d, r]` per query head: from the latent to the head's NoPE key.
    pub key_up: Vec<Mat<f64>>,
    /// One `[d_v, r]` per query head: from the latent to the head's value.
    pub value_up: Vec<Mat<f64>>,
    /// The number by which NoPE keys were divided; `key_up` includes it as a factor.
    pub ratio: f64,
    /// Share of the energy of balanced keys and values that the latent keeps, in `0..=1`.
    pub kept_energy: f64,
    /// Energy of each direction that a latent of full rank would have, descending, all of `N + G·d_v`.
    pub spectrum: Vec<f64>,
}

impl KvFactors {
    /// The same in a latent of at least this width: entries that are zero behind the others.
    pub fn widened(mut self, rank: usize) -> Self {
        let wide = |matrix: &Mat<f64>, rows: usize, columns: usize| {
            Mat::from_fn(rows, columns, |i, j| match i < matrix.nrows() && j < matrix.ncols() {
                true => matrix[(i, j)],
                false => 0.0,
            })
        };
        if rank > self.down.nrows() {
            self.down = wide(&self.down, rank, self.down.ncols());
            for up in self.key_up.iter_mut().chain(&mut self.value_up) {
                *up = wide(up, up.nrows(), rank);
            }
        }
        self
    }

    /// `kv_b_proj` in DeepSeek's layout: for each query head `d` key rows, then `d_v` value rows.
    ///
    /// # Shapes
    ///
    /// `[H·(d + d_v), r]`.
    ///
    /// # Panics
    ///
    /// If the fields were changed and an up-projection does not have `r` columns.
    pub fn kv_b(&self) -> Mat<f64> {
        let parts = || {
            self.key_up
                .iter()
                .zip(&self.value_up)
                .flat_map(|(key, value)| [key, value])
        };
        let mut stacked = Mat::zeros(parts().map(|part| part.nrows()).sum(), self.down.nrows());
        let mut row = 0;
        for part in parts() {
            stacked.as_mut().subrows_mut(row, part.nrows()).copy_from(part);
            row += part.nrows();
        }
        stacked
    }
}

/// Balances keys against values, takes their joint principal components and absorbs them into the up-projections.
///
/// With `y = [nope_keys/ratio; values]·x`, whose second moment is a quadratic form of `moment`, the latent is the
/// first `rank` principal components of `y`. At full rank, keys and values are reproduced exactly. Below it, the squared
/// error of `y` over the calibration inputs is the sum of the discarded (undamped) eigenvalues, the least for any linear
/// latent of that rank.
///
/// # Shapes
///
/// `moment`: `[D, D]`, the inputs' second moment up to a factor; `input` and the result as documented on their fields.
///
/// # Errors
///
/// [`LowRankError::Rank`] unless `1 <= rank <= N + G·d_v`; [`LowRankError::Balance`], [`LowRankError::Damping`] and
/// [`LowRankError::SkippedValues`] for choices out of range; [`LowRankError::Shape`], [`LowRankError::ValueHeadDim`],
/// [`LowRankError::HeadCount`] and [`LowRankError::NotFinite`] for matrices that do not fit or are not finite;
/// [`LowRankError::Eigen`] if the solver fails.
///
/// # Source
///
/// TransMLA, arXiv 2502.07864: balanced joint PCA of NoPE keys and values, absorbed into the DeepSeek layout.
pub fn joint_pca(input: &KvInput<'_>, moment: MatRef<'_, f64>, spec: &JointPca) -> Result<KvFactors, LowRankError> {
    let value_heads = input.check(moment, spec.rank, spec.damping)?;
    let keys = input.nope_keys.nrows();

    let mut joint = moment::lower_joint_form(input.nope_keys, input.values, moment);
    let (key_moment, value_moment) = diagonal_blocks(joint.as_ref(), keys);
    let ratio = balance::ratio(key_moment, value_moment, spec.skipped_values, spec.balance)?;
    divide_keys(&mut joint, keys, ratio);
    let components = pca::decompose(joint, spec.rank, spec.damping)?;
    let (key_basis, value_basis) = components.vectors.as_ref().split_at_row(keys);

    let mut down = moment::product(value_basis.transpose(), input.values);
    let par = get_global_parallelism();
    matmul(
        &mut down,
        Accum::Add,
        key_basis.transpose(),
        input.nope_keys,
        1.0 / ratio,
        par,
    );

    let queries_per_value = input.key_up.len() / value_heads;
    let width = input.value_head_dim;
    let value_up = (0..input.key_up.len())
        .map(|head| value_basis.subrows(head / queries_per_value * width, width).to_owned())
        .collect();
    let key_up = absorb_keys(input.key_up, key_basis, ratio);
    Ok(KvFactors {
        down,
        key_up,
        value_up,
        ratio,
        kept_energy: components.kept_energy(),
        spectrum: components.spectrum(),
    })
}

/// The keys' and the values' own second moments within the joint one.
fn diagonal_blocks(joint: MatRef<'_, f64>, keys: usize) -> (MatRef<'_, f64>, MatRef<'_, f64>) {
    let values = joint.nrows() - keys;
    (
        joint.submatrix(0, 0, keys, keys),
        joint.submatrix(keys, keys, values, values),
    )
}

/// Divides the keys of the joint moment by `ratio`; only the lower triangle is updated.
fn divide_keys(joint: &mut Mat<f64>, keys: usize, ratio: f64) {
    let size = joint.nrows();
    for column in 0..keys {
        for row in column..keys {
            joint[(row, column)] /= ratio * ratio;
        }
        for row in keys..size {
            joint[(row, column)] /= ratio;
        }
    }
}

/// `ratio · key_up · key_basis` of every head.
fn absorb_keys(key_up: &[Mat<f64>], key_basis: MatRef<'_, f64>, ratio: f64) -> Vec<Mat<f64>> {
    let mut absorbed: Vec<Mat<f64>> = Vec::with_capacity(key_up.len());
    for (head, up) in key_up.iter().enumerate() {
        // Query heads of one key head usually share their matrix, and a comparison is much cheaper than a product.
        let next = match absorbed.last() {
            Some(last) if *up == key_up[head - 1] => last.clone(),
            _ => {
                let mut next = Mat::zeros(up.nrows(), key_basis.ncols());
                matmul(
                    &mut next,
                    Accum::Replace,
                    up,
                    key_basis,
                    ratio,
                    get_global_parallelism(),
                );
                next
            }
        };
        absorbed.push(next);
    }
    absorbed
}
