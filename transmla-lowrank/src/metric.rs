//! One latent for keys and values in the metric of what the attention output notices.

use faer::{Mat, MatRef, Side};

use crate::{KvFactors, KvInput, LowRankError, check, moment, pca};

/// How much an error of each key head's keys without position and of each value head's values counts.
///
/// Errors e of a block cost `eᵀ M e`; with the sensitivity-weighted query moment as M for keys and the weighted output
/// projection for values, the sum is the first-order error of the layer's attention output.
#[derive(Debug, Clone)]
pub struct OutputMetric {
    /// Blocks along the diagonal for the NoPE keys; their sizes add up to `N`.
    pub keys: Vec<Mat<f64>>,
    /// Blocks along the diagonal for the values; their sizes add up to `G·d_v`.
    pub values: Vec<Mat<f64>>,
}

/// Principal components of keys and values in a metric: the best latent of a rank for the attention output, to first
/// order.
///
/// Each block is regularised by `regularisation` times its mean eigenvalue. The rows of `down` have unit power.
///
/// # Shapes
///
/// `moment`: `[D, D]`, the inputs' second moment *per token*.
///
/// # Errors
///
/// As [`joint_pca`](crate::joint_pca()).
pub fn metric_pca(
    input: &KvInput<'_>,
    moment: MatRef<'_, f64>,
    metric: &OutputMetric,
    rank: usize,
    regularisation: f64,
) -> Result<KvFactors, LowRankError> {
    let (keys, values) = (input.nope_keys.nrows(), input.values.nrows());
    let value_heads = values / input.value_head_dim.max(1);
    check::shape("the moment", moment, input.nope_keys.ncols(), input.nope_keys.ncols())?;
    for (what, blocks, rows) in [
        ("key metric", &metric.keys, keys),
        ("value metric", &metric.values, values),
    ] {
        let size: usize = blocks.iter().map(Mat::nrows).sum();
        if size != rows {
            return Err(LowRankError::Shape {
                what: what.into(),
                expected: format!("{rows}, {rows}"),
                rows: size,
                columns: size,
            });
        }
    }
    let roots = |blocks: &[Mat<f64>]| {
        blocks
            .iter()
            .map(|m| Roots::of(m.as_ref(), regularisation))
            .collect::<Result<Vec<_>, _>>()
    };
    let (key_roots, value_roots) = (roots(&metric.keys)?, roots(&metric.values)?);

    // Rows of weights in coordinates where every direction counts alike.
    let mut rows = Mat::zeros(keys + values, moment.nrows());
    apply(&key_roots, input.nope_keys, &mut rows, 0);
    apply(&value_roots, input.values, &mut rows, keys);
    let joint = moment::quadratic_form(rows.as_ref(), moment)?;
    let components = pca::principal_components(joint.as_ref(), rank, 0.0)?;
    let mut down = moment::product(components.vectors.as_ref().transpose(), rows.as_ref());

    // Unit power, so that no optimiser or number format sees rows of very different size.
    let unit: Vec<f64> = (0..rank).map(|i| components.values[i].max(1e-20).sqrt()).collect();
    for i in 0..rank {
        down.row_mut(i).iter_mut().for_each(|value| *value /= unit[i]);
    }
    let scaled = Mat::from_fn(keys + values, rank, |i, j| components.vectors[(i, j)] * unit[j]);
    let mut basis = Mat::zeros(keys + values, rank);
    apply_inverse(&key_roots, scaled.as_ref(), &mut basis, 0);
    apply_inverse(&value_roots, scaled.as_ref(), &mut basis, keys);
    let (key_basis, value_basis) = basis.as_ref().split_at_row(keys);
    let per_value = input.key_up.len() / value_heads.max(1);
    let width = input.value_head_dim;
    let kept_energy = components.kept_energy();
    Ok(KvFactors {
        down,
        key_up: input
            .key_up
            .iter()
            .map(|up| moment::product(up.as_ref(), key_basis))
            .collect(),
        value_up: (0..input.key_up.len())
            .map(|head| value_basis.subrows(head / per_value * width, width).to_owned())
            .collect(),
        ratio: 1.0,
        kept_energy,
    })
}

/// Square root of a block and the inverse of it.
struct Roots {
    root: Mat<f64>,
    inverse: Mat<f64>,
}

impl Roots {
    fn of(block: MatRef<'_, f64>, regularisation: f64) -> Result<Self, LowRankError> {
        check::finite("the metric", block)?;
        let size = block.nrows();
        let eigen = block
            .self_adjoint_eigen(Side::Lower)
            .map_err(|_| LowRankError::Eigen { size })?;
        let values: Vec<f64> = (0..size).map(|i| eigen.S()[i].max(0.0)).collect();
        // A block that nothing depends on must still be invertible.
        let floor = (regularisation * values.iter().sum::<f64>() / size as f64).max(1e-30);
        let basis = eigen.U();
        let with = |f: &dyn Fn(f64) -> f64| {
            let scaled = Mat::from_fn(size, size, |i, j| basis[(i, j)] * f(values[j] + floor));
            &scaled * basis.transpose()
        };
        Ok(Self {
            root: with(&f64::sqrt),
            inverse: with(&|value| 1.0 / value.sqrt()),
        })
    }
}

fn apply(roots: &[Roots], rows: MatRef<'_, f64>, target: &mut Mat<f64>, offset: usize) {
    let mut start = 0;
    for block in roots {
        let size = block.root.nrows();
        let product = moment::product(block.root.as_ref(), rows.subrows(start, size));
        target.as_mut().subrows_mut(offset + start, size).copy_from(&product);
        start += size;
    }
}

fn apply_inverse(roots: &[Roots], rows: MatRef<'_, f64>, target: &mut Mat<f64>, offset: usize) {
    let mut start = offset;
    for block in roots {
        let size = block.inverse.nrows();
        let product = moment::product(block.inverse.as_ref(), rows.subrows(start, size));
        target.as_mut().subrows_mut(start, size).copy_from(&product);
        start += size;
    }
}
