//! Joint PCA of keys and values in a metric that weighs errors by their effect on the attention output.

use faer::prelude::ReborrowMut;
use faer::{Mat, MatMut, MatRef, Side};

use crate::check;
use crate::error::LowRankError;
use crate::input::KvInput;
use crate::joint::KvFactors;
use crate::moment;
use crate::pca;

/// Weights of the errors of each key head's keys without position and of each value head's values.
///
/// An error `e` of a block costs `eᵀ M e`. If `M` is the sensitivity-weighted query moment for keys and the weighted output
/// projection for values, the total cost is the error of the layer's attention output to first order.
///
/// Blocks are positive semidefinite: symmetric up to rounding (the lower triangle is read), with negative eigenvalues taken
/// as 0.
#[derive(Debug, Clone)]
pub struct OutputMetric {
    /// Square diagonal blocks for the NoPE keys; their sizes add up to `N`.
    pub keys: Vec<Mat<f64>>,
    /// Square diagonal blocks for the values; their sizes add up to `G·d_v`.
    pub values: Vec<Mat<f64>>,
}

/// Takes the principal components of keys and values in a metric: to first order, the best latent of its rank for the
/// attention output.
///
/// With `Y = [nope_keys; values]` and `M` the regularised metric, the latent is the first `rank` principal components of
/// `M^½ Y x`. At full rank, keys and values are reproduced exactly. Below it, the cost `tr(M E C Eᵀ)` of the error
/// `E = Y - up·down` is the sum of the discarded eigenvalues, the least for any linear latent of that rank.
///
/// Each block is regularised by `regularisation` times its mean eigenvalue, and by at least a tiny share of the largest such
/// mean, so that directions without any effect are reproduced last. The rows of `down` have unit power (except those that
/// are zero up to rounding), `ratio` is 1, and `kept_energy` is measured in the metric.
///
/// # Shapes
///
/// `moment`: `[D, D]`, the inputs' second moment *per token*; `input`, `metric` and the result as documented on their
/// fields.
///
/// # Errors
///
/// [`LowRankError::Rank`] unless `1 <= rank <= N + G·d_v`; [`LowRankError::Damping`] for a negative `regularisation` or a
/// NaN; [`LowRankError::Empty`], [`LowRankError::Shape`], [`LowRankError::ValueHeadDim`], [`LowRankError::HeadCount`] and
/// [`LowRankError::NotFinite`] for matrices that do not fit or are not finite; [`LowRankError::Eigen`] if the solver
/// fails.
///
/// # Source
///
/// This project's own method; with all blocks the identity it is the joint PCA of TransMLA, arXiv 2502.07864, without
/// balance.
pub fn metric_pca(
    input: &KvInput<'_>,
    moment: MatRef<'_, f64>,
    metric: &OutputMetric,
    rank: usize,
    regularisation: f64,
) -> Result<KvFactors, LowRankError> {
    let value_heads = input.check(moment, rank, regularisation)?;
    let (keys, values) = (input.nope_keys.nrows(), input.values.nrows());
    check_metric("the key metric", &metric.keys, keys)?;
    check_metric("the value metric", &metric.values, values)?;
    let (key_roots, value_roots) = roots(metric, regularisation)?;

    // Weights in coordinates in which the metric is the identity.
    let mut rows = Mat::zeros(keys + values, moment.nrows());
    let (key_rows, value_rows) = rows.as_mut().split_at_row_mut(keys);
    apply(key_roots.iter().map(|of| &of.root), input.nope_keys, key_rows);
    apply(value_roots.iter().map(|of| &of.root), input.values, value_rows);
    let joint = moment::quadratic_form(rows.as_ref(), moment)?;
    let components = pca::decompose(joint, rank, 0.0)?;
    let mut down = moment::product(components.vectors.as_ref().transpose(), rows.as_ref());

    // Rows of unit power, so that neither an optimiser nor a number format has to deal with very different magnitudes.
    // Without any power (all inputs zero) rows stay as they are.
    let unit: Vec<f64> = match components.values[0] > LEAST_POWER {
        true => {
            let least = NEGLIGIBLE * components.values[0];
            (0..rank).map(|i| components.values[i].max(least).sqrt()).collect()
        }
        false => vec![1.0; rank],
    };
    for (i, unit) in unit.iter().enumerate() {
        down.row_mut(i).iter_mut().for_each(|value| *value /= unit);
    }
    let scaled = Mat::from_fn(keys + values, rank, |i, j| components.vectors[(i, j)] * unit[j]);
    let (key_part, value_part) = scaled.as_ref().split_at_row(keys);
    let (mut key_basis, mut value_basis) = (Mat::zeros(keys, rank), Mat::zeros(values, rank));
    apply(key_roots.iter().map(|of| &of.inverse), key_part, key_basis.as_mut());
    apply(
        value_roots.iter().map(|of| &of.inverse),
        value_part,
        value_basis.as_mut(),
    );

    let queries_per_value = input.key_up.len() / value_heads;
    let width = input.value_head_dim;
    let value_up = (0..input.key_up.len())
        .map(|head| value_basis.subrows(head / queries_per_value * width, width).to_owned())
        .collect();
    Ok(KvFactors {
        down,
        key_up: input
            .key_up
            .iter()
            .map(|up| moment::product(up.as_ref(), key_basis.as_ref()))
            .collect(),
        value_up,
        ratio: 1.0,
        kept_energy: components.kept_energy(),
        spectrum: components.spectrum(),
    })
}

/// Share of the largest eigenvalue below which an eigenvalue is taken for rounding.
const NEGLIGIBLE: f64 = 1e-12;

/// Power below which everything is taken for rounding: weights are used in single precision, which has no smaller normal
/// numbers.
const LEAST_POWER: f64 = f32::MIN_POSITIVE as f64;

fn check_metric(what: &'static str, blocks: &[Mat<f64>], rows: usize) -> Result<(), LowRankError> {
    for (index, block) in blocks.iter().enumerate() {
        check::square(&format!("block {index} of {what}"), block.as_ref())?;
        check::finite(what, block.as_ref())?;
    }
    let size: usize = blocks.iter().map(Mat::nrows).sum();
    if size == rows {
        return Ok(());
    }
    Err(LowRankError::Shape {
        what: format!("{what} with all its blocks"),
        expected: format!("{rows}, {rows}"),
        rows: size,
        columns: size,
    })
}

/// The square root of a block and its inverse.
struct Roots {
    root: Mat<f64>,
    inverse: Mat<f64>,
}

/// Regularised roots of the key blocks and of the value blocks.
fn roots(metric: &OutputMetric, regularisation: f64) -> Result<(Vec<Roots>, Vec<Roots>), LowRankError> {
    let spectra = |blocks: &[Mat<f64>]| {
        let blocks = blocks.iter().filter(|block| block.nrows() > 0);
        blocks
            .map(|block| Spectrum::of(block.as_ref()))
            .collect::<Result<Vec<_>, _>>()
    };
    let (keys, values) = (spectra(&metric.keys)?, spectra(&metric.values)?);
    let largest = keys.iter().chain(&values).map(Spectrum::mean).fold(0.0, f64::max);
    // A block of zeros must still be invertible; if all blocks are zero, all directions weigh the same.
    let least = if largest > 0.0 { NEGLIGIBLE * largest } else { 1.0 };
    let regularised = |spectrum: &Spectrum| spectrum.roots((regularisation * spectrum.mean()).max(least));
    Ok((
        keys.iter().map(regularised).collect(),
        values.iter().map(regularised).collect(),
    ))
}

/// Eigenvalues (negative ones set to 0) and eigenvectors of a block.
struct Spectrum {
    values: Vec<f64>,
    vectors: Mat<f64>,
}

impl Spectrum {
    fn of(block: MatRef<'_, f64>) -> Result<Self, LowRankError> {
        let failed = |_| LowRankError::Eigen { size: block.nrows() };
        let eigen = block.self_adjoint_eigen(Side::Lower).map_err(failed)?;
        Ok(Self {
            values: eigen.S().column_vector().iter().map(|value| value.max(0.0)).collect(),
            vectors: eigen.U().to_owned(),
        })
    }

    fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    fn roots(&self, shift: f64) -> Roots {
        let size = self.values.len();
        let with = |f: fn(f64) -> f64| {
            let scaled = Mat::from_fn(size, size, |i, j| self.vectors[(i, j)] * f(self.values[j] + shift));
            moment::product(scaled.as_ref(), self.vectors.transpose())
        };
        Roots {
            root: with(f64::sqrt),
            inverse: with(|value| value.sqrt().recip()),
        }
    }
}

/// Multiplies a block-diagonal matrix by rows.
fn apply<'a>(blocks: impl Iterator<Item = &'a Mat<f64>>, rows: MatRef<'_, f64>, mut target: MatMut<'_, f64>) {
    let mut start = 0;
    for block in blocks {
        let size = block.nrows();
        let product = moment::product(block.as_ref(), rows.subrows(start, size));
        target.rb_mut().subrows_mut(start, size).copy_from(&product);
        start += size;
    }
}
