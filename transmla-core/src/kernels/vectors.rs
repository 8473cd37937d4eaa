//! Skinny matrix products in registers: what decoding is made of.
//!
//! General matrix products copy their operands into panels first, which costs as much as the product itself where one side
//! has a few rows only. Here a tile of results stays in registers while both operands are read where they lie.

#![expect(
    clippy::needless_range_loop,
    clippy::manual_memcpy,
    reason = "iterators over arrays of vectors may be left as calls, through which no vector fits in a register"
)]

use std::ops::RangeInclusive;

use pulp::{Arch, Simd, WithSimd};

use super::prefetch::Prefetch;

/// Rows of a tile.
const TILE: usize = 4;

/// Vectors in a row that is long enough for its sum across one not to matter, and too short for a stream of its own.
const STREAMED: RangeInclusive<usize> = 8..=32;

/// Lines of memory to come that are asked for at each row of a strip.
const LINES: usize = 2;

/// Rows of equal width in a slice, their starts `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    values: &'a [f32],
    width: usize,
    stride: usize,
    count: usize,
}

impl<'a> Rows<'a> {
    /// `count` rows of `width` numbers.
    pub fn new(values: &'a [f32], count: usize, width: usize, stride: usize) -> Self {
        assert!(width <= stride && (count == 0 || (count - 1) * stride + width <= values.len()));
        Self {
            values,
            width,
            stride,
            count,
        }
    }

    #[inline(always)]
    fn row(&self, index: usize) -> &'a [f32] {
        &self.values[index * self.stride..][..self.width]
    }
}

/// `target[i, j] = scale · aᵢ · bⱼ`; target rows are `stride` apart.
pub(super) fn dots(arch: Arch, target: &mut [f32], stride: usize, scale: f32, a: Rows<'_>, b: Rows<'_>) {
    assert_eq!(a.width, b.width);
    assert!(b.count <= stride && (a.count == 0 || (a.count - 1) * stride + b.count <= target.len()));
    arch.dispatch(Dots {
        target,
        stride,
        scale,
        a,
        b,
    });
}

/// `target[i] += Σⱼ weights[i, j] · bⱼ`; target rows are `stride` apart. The memory of `prefetch` is asked for on the way.
pub(super) fn combine(
    arch: Arch,
    target: &mut [f32],
    stride: usize,
    weights: Rows<'_>,
    b: Rows<'_>,
    prefetch: Prefetch,
) {
    assert_eq!(weights.width, b.count);
    assert!(b.width <= stride && (weights.count == 0 || (weights.count - 1) * stride + b.width <= target.len()));
    arch.dispatch(Combine {
        target,
        stride,
        weights,
        b,
        prefetch,
    });
}

/// `target[m, n] = a[m, k] · b[n, k]ᵀ`, with sizes m, k, n.
pub(crate) fn dot_products(target: &mut [f32], a: &[f32], b: &[f32], [m, k, n]: [usize; 3]) {
    dots(
        Arch::new(),
        target,
        n,
        1.0,
        Rows::new(a, m, k, k),
        Rows::new(b, n, k, k),
    );
}

/// `target[m, ..n] += weights[m, k] · b[k, n]`, with sizes m, k, n; target rows are `stride` apart.
pub(crate) fn add_combinations(target: &mut [f32], stride: usize, weights: &[f32], b: &[f32], [m, k, n]: [usize; 3]) {
    combine(
        Arch::new(),
        target,
        stride,
        Rows::new(weights, m, k, k),
        Rows::new(b, k, n, n),
        Prefetch::none(),
    );
}

/// Rows of the next tile of those left: as many as fit, but with no single row at the end.
#[inline(always)]
fn tile_rows(left: usize) -> usize {
    match left {
        5 | 6 | 9 => 3,
        _ => left.min(TILE),
    }
}

struct Dots<'a> {
    target: &'a mut [f32],
    stride: usize,
    scale: f32,
    a: Rows<'a>,
    b: Rows<'a>,
}

impl WithSimd for Dots<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        // The rows of b come from far away and those of a are few: each tile of b meets all of a. Rows that are short are
        // best read one by one where little is done with them: the processor then sees a single stream from memory.
        let stream = self.a.count <= TILE && STREAMED.contains(&(self.b.width / S::F32_LANES));
        let mut j = 0;
        while j < self.b.count {
            // A tile of sixteen sums and its operands fit into 32 registers, one of eight into 16.
            let left = self.b.count - j;
            j += match left {
                _ if stream => self.column::<S, 1>(simd, j),
                _ if left >= 4 && S::REGISTER_COUNT >= 32 => self.column::<S, 4>(simd, j),
                _ if left >= 2 => self.column::<S, 2>(simd, j),
                _ => self.column::<S, 1>(simd, j),
            };
        }
    }
}

impl Dots<'_> {
    #[inline(always)]
    fn column<S: Simd, const N: usize>(&mut self, simd: S, j: usize) -> usize {
        let mut i = 0;
        while i < self.a.count {
            i += match tile_rows(self.a.count - i) {
                1 => self.tile::<S, 1, N>(simd, i, j),
                2 => self.tile::<S, 2, N>(simd, i, j),
                3 => self.tile::<S, 3, N>(simd, i, j),
                _ => self.tile::<S, TILE, N>(simd, i, j),
            };
        }
        N
    }

    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(&mut self, simd: S, i: usize, j: usize) -> usize {
        let steps = self.a.width / S::F32_LANES;
        let empty: &[f32] = &[];
        let (mut a, mut a_rest) = ([S::as_simd_f32s(empty).0; M], [empty; M]);
        let (mut b, mut b_rest) = ([S::as_simd_f32s(empty).0; N], [empty; N]);
        for m in 0..M {
            let (body, rest) = S::as_simd_f32s(self.a.row(i + m));
            (a[m], a_rest[m]) = (&body[..steps], rest);
        }
        for n in 0..N {
            let (body, rest) = S::as_simd_f32s(self.b.row(j + n));
            (b[n], b_rest[n]) = (&body[..steps], rest);
        }
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for step in 0..steps {
            let mut y = [simd.splat_f32s(0.0); N];
            for n in 0..N {
                y[n] = b[n][step];
            }
            for m in 0..M {
                let x = a[m][step];
                for n in 0..N {
                    sums[m][n] = simd.mul_add_f32s(x, y[n], sums[m][n]);
                }
            }
        }
        if !a_rest[0].is_empty() {
            let mut y = [simd.splat_f32s(0.0); N];
            for n in 0..N {
                y[n] = simd.partial_load_f32s(b_rest[n]);
            }
            for m in 0..M {
                let x = simd.partial_load_f32s(a_rest[m]);
                for n in 0..N {
                    sums[m][n] = simd.mul_add_f32s(x, y[n], sums[m][n]);
                }
            }
        }
        for m in 0..M {
            let target = &mut self.target[(i + m) * self.stride + j..][..N];
            for n in 0..N {
                target[n] = self.scale * simd.reduce_sum_f32s(sums[m][n]);
            }
        }
        M
    }
}

struct Combine<'a> {
    target: &'a mut [f32],
    stride: usize,
    weights: Rows<'a>,
    b: Rows<'a>,
    prefetch: Prefetch,
}

impl WithSimd for Combine<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(mut self, simd: S) {
        let lanes = S::F32_LANES;
        let mut column = 0;
        while column < self.b.width {
            // A strip of b stays in the first cache while it meets all rows of weights.
            let vectors = (self.b.width - column) / lanes;
            column += match vectors {
                _ if vectors >= 8 && self.weights.count == 1 => self.strip::<S, 8>(simd, column),
                _ if vectors >= 4 && S::REGISTER_COUNT >= 32 => self.strip::<S, 4>(simd, column),
                _ if vectors >= 2 => self.strip::<S, 2>(simd, column),
                _ => self.strip::<S, 1>(simd, column),
            };
        }
    }
}

impl Combine<'_> {
    #[inline(always)]
    fn strip<S: Simd, const N: usize>(&mut self, simd: S, column: usize) -> usize {
        let width = (N * S::F32_LANES).min(self.b.width - column);
        let mut i = 0;
        while i < self.weights.count {
            i += match tile_rows(self.weights.count - i) {
                1 => self.tile::<S, 1, N>(simd, i, column, width),
                2 => self.tile::<S, 2, N>(simd, i, column, width),
                3 => self.tile::<S, 3, N>(simd, i, column, width),
                _ => self.tile::<S, TILE, N>(simd, i, column, width),
            };
        }
        width
    }

    /// `width` is that of N vectors, or less than that of one where N is 1.
    #[inline(always)]
    fn tile<S: Simd, const M: usize, const N: usize>(
        &mut self,
        simd: S,
        i: usize,
        column: usize,
        width: usize,
    ) -> usize {
        let whole = width == N * S::F32_LANES;
        let count = self.b.count;
        let mut weights = [&[] as &[f32]; M];
        let mut sums = [[simd.splat_f32s(0.0); N]; M];
        for m in 0..M {
            weights[m] = &self.weights.row(i + m)[..count];
            let target = &self.target[(i + m) * self.stride + column..][..width];
            if whole {
                let target = &S::as_simd_f32s(target).0[..N];
                for n in 0..N {
                    sums[m][n] = target[n];
                }
            } else {
                sums[m][0] = simd.partial_load_f32s(target);
            }
        }
        let mut prefetch = self.prefetch;
        for j in 0..count {
            prefetch.prefetch(LINES);
            let b = &self.b.values[j * self.b.stride + column..][..width];
            let mut y = [simd.splat_f32s(0.0); N];
            if whole {
                let b = &S::as_simd_f32s(b).0[..N];
                for n in 0..N {
                    y[n] = b[n];
                }
            } else {
                y[0] = simd.partial_load_f32s(b);
            }
            for m in 0..M {
                let x = simd.splat_f32s(weights[m][j]);
                for n in 0..N {
                    sums[m][n] = simd.mul_add_f32s(x, y[n], sums[m][n]);
                }
            }
        }
        self.prefetch = prefetch;
        for m in 0..M {
            let target = &mut self.target[(i + m) * self.stride + column..][..width];
            if whole {
                let target = &mut S::as_mut_simd_f32s(target).0[..N];
                for n in 0..N {
                    target[n] = sums[m][n];
                }
            } else {
                simd.partial_store_f32s(target, sums[m][0]);
            }
        }
        M
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbers(count: usize, seed: usize) -> Vec<f32> {
        (0..count)
            .map(|i| ((i * 37 + seed * 101) % 71) as f32 / 35.0 - 1.0)
            .collect()
    }

    proptest! {
        /// Both against their definitions, with rows that are further apart than they are wide.
        #[test]
        fn products_of_rows(m in 1usize..11, n in 1usize..23, width in 1usize..150, gap in 0usize..5) {
            let stride = width + gap;
            let (a, b) = (numbers(m * stride, 1), numbers(n * stride, 2));
            let (a, b) = (Rows::new(&a, m, width, stride), Rows::new(&b, n, width, stride));
            let mut products = vec![7.0; m * (n + gap)];
            dots(Arch::new(), &mut products, n + gap, 0.5, a, b);
            let weights = Rows::new(&products, m, n, n + gap);
            let mut sums = vec![1.0; m * stride];
            combine(Arch::new(), &mut sums, stride, weights, b, Prefetch::none());
            for i in 0..m {
                for j in 0..n + gap {
                    let found = f64::from(products[i * (n + gap) + j]);
                    if j < n {
                        let terms = a.row(i).iter().zip(b.row(j)).map(|(x, y)| f64::from(*x) * f64::from(*y));
                        prop_assert!((found - 0.5 * terms.sum::<f64>()).abs() < 1e-4);
                    } else {
                        prop_assert_eq!(found, 7.0);
                    }
                }
                for c in 0..stride {
                    let found = f64::from(sums[i * stride + c]);
                    if c < width {
                        let weight = |j: usize| f64::from(products[i * (n + gap) + j]);
                        let expected = 1.0 + (0..n).map(|j| weight(j) * f64::from(b.row(j)[c])).sum::<f64>();
                        prop_assert!((found - expected).abs() < 1e-3, "{} {}", found, expected);
                    } else {
                        prop_assert_eq!(found, 1.0);
                    }
                }
            }
        }
    }
}
