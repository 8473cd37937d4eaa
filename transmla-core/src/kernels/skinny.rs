//! Skinny matrix products on the CPU: a few rows times a weight, which is read once.
//!
//! General products rearrange their operands first. For a few rows that costs many times what the product does, and with a
//! single row it is done by one thread.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;

use super::vectors::dot_products;
use crate::host::HostNumbers;

/// The most rows for which this is faster than a general product.
const MAX_ROWS: usize = 32;

/// Weights that are not worth waking another thread for: what one reads from memory in 25 µs.
const SERIAL: usize = 1 << 17;

/// `x Wᵀ`: `[rows, in]` and a weight `[out, in]` to `[rows, out]`.
///
/// `None` if there are many rows, or one of the two is not in host memory in `f32`.
pub(crate) fn skinny_product(x: &Tensor<2>, weight: &Tensor<2>) -> Option<Tensor<2>> {
    let ([rows, input], [outputs, width]) = (x.dims(), weight.dims());
    if rows > MAX_ROWS || rows * outputs * input == 0 || input != width {
        return None;
    }
    let weight = HostNumbers::of(weight.clone())?;
    let x = HostNumbers::of(x.clone())?;
    let product = product(x.as_slice(), weight.as_slice(), [rows, input, outputs]);
    Some(Tensor::from_data(
        TensorData::new(product, [rows, outputs]),
        &Device::flex(),
    ))
}

/// `x[m, k] · w[n, k]ᵀ`, with sizes m, k, n.
fn product(x: &[f32], weight: &[f32], [m, k, n]: [usize; 3]) -> Vec<f32> {
    let mut product = vec![0.0; m * n];
    let part = |(weight, product): (&[f32], &mut [f32])| {
        dot_products(product, x, weight, [m, k, weight.len() / k]);
    };
    let pieces = (k * n / SERIAL).clamp(1, 2 * rayon::current_num_threads());
    if pieces == 1 {
        part((weight, &mut product));
        return product;
    }
    // Outputs in pieces, `[pieces, m, size]`.
    let size = n.div_ceil(pieces).next_multiple_of(4);
    weight
        .par_chunks(size * k)
        .zip(product.par_chunks_mut(size * m))
        .for_each(part);
    match m {
        1 => product,
        _ => side_by_side(&product, [m, size, n]),
    }
}

/// From pieces `[m, size]`, of which the last may be narrower, to `[m, n]`.
fn side_by_side(pieces: &[f32], [m, size, n]: [usize; 3]) -> Vec<f32> {
    let mut whole = vec![0.0; m * n];
    for (index, piece) in pieces.chunks(size * m).enumerate() {
        let width = piece.len() / m;
        for (row, piece) in piece.chunks_exact(width).enumerate() {
            whole[row * n + index * size..][..width].copy_from_slice(piece);
        }
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::Distribution;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        /// Against the general product, with shapes that are divided among threads and others; and the same to the bit as
        /// row by row.
        #[test]
        fn is_the_product(rows in 1usize..9, input in 1usize..700, outputs in 1usize..1500) {
            let random = |shape| Tensor::<2>::random(shape, Distribution::Uniform(-1.0, 1.0), &Device::flex());
            let (x, weight) = (random([rows, input]), random([outputs, input]));
            let found = skinny_product(&x, &weight).unwrap();
            let difference = (found.clone() - x.clone().matmul(weight.clone().transpose())).abs().max();
            prop_assert!(difference.into_scalar::<f32>() < 1e-6 * input as f32 + 1e-5);
            for row in 0..rows {
                let single = skinny_product(&x.clone().narrow(0, row, 1), &weight).unwrap();
                prop_assert_eq!(single.into_data(), found.clone().narrow(0, row, 1).into_data());
            }
        }
    }

    #[test]
    fn other_products_are_left_to_others() {
        let zeros = |shape: [usize; 2]| Tensor::<2>::zeros(shape, &Device::flex());
        assert!(skinny_product(&zeros([MAX_ROWS + 1, 4]), &zeros([3, 4])).is_none());
        assert!(skinny_product(&zeros([1, 5]), &zeros([3, 4])).is_none());
        assert!(skinny_product(&zeros([1, 4]), &zeros([3, 4]).autodiff()).is_none());
    }
}
