//! Products of large matrices.

use burn::tensor::{Device, Tensor, TensorData};
use gemm::{Parallelism, gemm};

use crate::host::HostMatrix;

/// Multiplications that are not worth waking another thread for.
const SERIAL: usize = 192 * 192 * 192;

/// `a b`, `[m, k]` and `[k, n]` to `[m, n]`, on any device.
///
/// On the CPU, both matrices are read where they lie, transposes included, and the product is written once; burn's own writes zeros
/// first and copies the result afterwards. Elsewhere, and where gradients are recorded, it is burn's.
///
/// # Panics
/// If the widths do not fit each other.
pub fn matrix_product(a: Tensor<2>, b: Tensor<2>) -> Tensor<2> {
    let ([m, k], [rows, n]) = (a.dims(), b.dims());
    assert_eq!(k, rows, "a product of matrices that do not fit");
    match host_product(&a, &b, [m, k, n]) {
        Some(product) => Tensor::from_data(TensorData::new(product, [m, n]), &Device::flex()),
        None => a.matmul(b),
    }
}

/// Nothing if it is not to be done here.
fn host_product(a: &Tensor<2>, b: &Tensor<2>, [m, k, n]: [usize; 3]) -> Option<Vec<f32>> {
    if m * k * n == 0 {
        return None;
    }
    let (a, b) = (HostMatrix::of(a)?, HostMatrix::of(b)?);
    let parallelism = match m.saturating_mul(k).saturating_mul(n) < SERIAL {
        true => Parallelism::None,
        false => Parallelism::Rayon(0),
    };
    let mut product = Vec::<f32>::with_capacity(m * n);
    // SAFETY: `HostMatrix` has all elements of its rows and columns within its storage, which nothing writes to while it is held. The
    // target has room for m · n numbers and is no part of either; its numbers are all written, and none is read before
    // (`read_dst` is false), so that the length may be set afterwards.
    unsafe {
        gemm(
            m,
            n,
            k,
            product.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.first(),
            a.column_stride(),
            a.row_stride(),
            b.first(),
            b.column_stride(),
            b.row_stride(),
            0.0,
            1.0,
            false,
            false,
            false,
            parallelism,
        );
        product.set_len(m * n);
    }
    Some(product)
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        /// Whole matrices, transposes, and parts of larger ones, with one thread and with several.
        #[test]
        fn is_the_product(
            m in 1usize..260, k in 1usize..230, n in 1usize..240, cut in 0usize..5, turned in any::<(bool, bool)>(),
        ) {
            let random = |rows: usize, columns: usize, turned: bool| {
                let shape = if turned { [columns + cut, rows + cut] } else { [rows + cut, columns + cut] };
                let whole = Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
                let whole = if turned { whole.transpose() } else { whole };
                whole.narrow(0, cut, rows).narrow(1, cut, columns)
            };
            let (a, b) = (random(m, k, turned.0), random(k, n, turned.1));
            prop_assert!(host_product(&a, &b, [m, k, n]).is_some());
            let found = matrix_product(a.clone(), b.clone());
            let difference = (found - a.matmul(b)).abs().max();
            prop_assert!(difference.into_scalar::<f32>() < 1e-6 * k as f32);
        }
    }

    #[test]
    fn other_products_are_burns() {
        let ones = |shape: [usize; 2]| Tensor::<2>::ones(shape, &Device::flex());
        let recorded = matrix_product(ones([3, 4]).autodiff(), ones([4, 2]).autodiff());
        assert!(recorded.is_autodiff());
        assert_eq!(matrix_product(ones([0, 4]), ones([4, 2])).dims(), [0, 2]);
        // An expanded row has a stride of 0.
        let expanded = ones([1, 4]).expand([3, 4]);
        let sums = matrix_product(expanded, ones([4, 2])).into_data();
        assert!(sums.iter::<f32>().all(|sum| sum == 4.0));
    }
}
