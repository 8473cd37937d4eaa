//! What the decoupling must not change, for random heads, folds and weights.

use faer::{Mat, MatRef};
use proptest::prelude::*;
use transmla_rope::{Decoupling, FoldSpec, HeadShape, KeyRotation, RopeError, SplitKeys, rororope, slot_energy};

use random::{frequencies, random};

mod random;

const THETA: f64 = 10_000.0;
const INPUTS: usize = 5;

fn divisors(n: usize) -> Vec<usize> {
    (1..=n).filter(|i| n.is_multiple_of(*i)).collect()
}

/// Heads with any valid fold.
fn folds() -> impl Strategy<Value = (HeadShape, FoldSpec)> {
    (1..=3_usize, 1..=3_usize, 1..=12_usize).prop_flat_map(|(key_heads, repeats, pairs)| {
        let shape = HeadShape::new(key_heads * repeats, key_heads, 2 * pairs).unwrap();
        prop::sample::select(divisors(pairs)).prop_flat_map(move |collapse| {
            prop::sample::select(divisors(pairs / collapse)).prop_map(move |multiple| {
                (
                    shape,
                    FoldSpec::new(shape, 2 * pairs / collapse, multiple * collapse).unwrap(),
                )
            })
        })
    })
}

struct Layer {
    keys: Mat<f64>,
    queries: Mat<f64>,
    moment: Mat<f64>,
}

fn layer(shape: HeadShape, seed: u64) -> Layer {
    let keys = random(shape.key_width(), INPUTS, seed);
    let moment = &keys * keys.transpose();
    Layer {
        keys,
        queries: random(shape.query_width(), INPUTS, seed ^ 1),
        moment,
    }
}

/// Turns half-split pairs: pair `n` of `vector` by `angles[n]`.
fn turn(vector: &[f64], angles: impl Fn(usize) -> f64) -> Vec<f64> {
    let pairs = vector.len() / 2;
    let mut turned = vec![0.0; vector.len()];
    for n in 0..pairs {
        let (sin, cos) = angles(n).sin_cos();
        turned[n] = vector[n] * cos - vector[n + pairs] * sin;
        turned[n + pairs] = vector[n] * sin + vector[n + pairs] * cos;
    }
    turned
}

fn column(matrix: MatRef<'_, f64>, column: usize, first: usize, rows: usize) -> Vec<f64> {
    (first..first + rows).map(|row| matrix[(row, column)]).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The score of input 0 as query and input 1 as key, `distance` apart, in the original head.
fn original_score(layer: &Layer, shape: HeadShape, head: usize, angle: impl Fn(usize) -> f64) -> f64 {
    let d = shape.head_dim;
    let query = column(layer.queries.as_ref(), 0, head * d, d);
    let key = column(layer.keys.as_ref(), 1, shape.key_head_of(head) * d, d);
    dot(&query, &turn(&key, angle))
}

/// The same score from the split, with slots and NoPE pairs turned by the given angles.
fn split_score(
    layer: &Layer,
    decoupling: &Decoupling,
    split: &SplitKeys,
    head: usize,
    slot_angle: impl Fn(usize) -> f64,
    nope_angle: impl Fn(usize) -> f64,
) -> f64 {
    let (d, d_r, width) = (
        decoupling.shape.head_dim,
        decoupling.rope_dim(),
        decoupling.nope_width(),
    );
    let rope_queries = decoupling.rope_queries(layer.queries.as_ref()).unwrap();
    let rope = turn(&column(split.rope.as_ref(), 1, 0, d_r), slot_angle);
    let nope = turn(&column(split.nope.as_ref(), 1, 0, width), nope_angle);
    let up = &decoupling.key_up[head];
    let key: Vec<f64> = (0..d).map(|i| (0..width).map(|n| up[(i, n)] * nope[n]).sum()).collect();
    dot(&column(rope_queries.as_ref(), 0, head * d_r, d_r), &rope)
        + dot(&column(layer.queries.as_ref(), 0, head * d, d), &key)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_basis_is_orthogonal((shape, fold) in folds(), seed: u64) {
        let decoupling = rororope(layer(shape, seed).moment.as_ref(), shape, &fold).unwrap();
        let width = shape.key_width();
        let d_r = decoupling.rope_dim();
        prop_assert_eq!((d_r, decoupling.nope_width()), (fold.rope_dim(), width - fold.rope_dim()));
        let basis = Mat::from_fn(width, width, |i, j| {
            if i < d_r { decoupling.key_rope[(i, j)] } else { decoupling.key_nope[(i - d_r, j)] }
        });
        let error = &basis * basis.transpose() - Mat::<f64>::identity(width, width);
        prop_assert!(error.norm_max() < 1e-12, "{}", error.norm_max());
    }

    #[test]
    fn scores_at_distance_0_are_the_original_ones((shape, fold) in folds(), seed: u64) {
        let layer = layer(shape, seed);
        let decoupling = rororope(layer.moment.as_ref(), shape, &fold).unwrap();
        let split = decoupling.split_keys(layer.keys.as_ref()).unwrap();
        for head in 0..shape.query_heads {
            let before = original_score(&layer, shape, head, |_| 0.0);
            let after = split_score(&layer, &decoupling, &split, head, |_| 0.0, |_| 0.0);
            prop_assert!((before - after).abs() < 1e-11, "head {head}: {before} and {after}");
        }
    }

    /// With one frequency per group, RoPE commutes with the rotation: nothing is lost until NoPE pairs stop turning.
    #[test]
    fn the_rotation_commutes_with_rope(
        key_heads in 1..=3_usize, repeats in 1..=3_usize, pairs in 1..=8_usize, seed: u64, distance in 0..5000_i32,
    ) {
        let shape = HeadShape::new(key_heads * repeats, key_heads, 2 * pairs).unwrap();
        let layer = layer(shape, seed);
        let decoupling =
            rororope(layer.moment.as_ref(), shape, &FoldSpec::new(shape, shape.head_dim, 1).unwrap()).unwrap();
        let split = decoupling.split_keys(layer.keys.as_ref()).unwrap();
        let frequencies = frequencies(THETA, shape.head_dim);
        let angle = |pair: usize| frequencies[pair] * f64::from(distance);
        for head in 0..shape.query_heads {
            let before = original_score(&layer, shape, head, angle);
            let after = split_score(&layer, &decoupling, &split, head, angle, |n| angle(n / (key_heads - 1)));
            prop_assert!((before - after).abs() < 1e-10, "head {head}: {before} and {after}");
        }
    }

    /// The same for every fold, if all frequencies of a group were equal.
    #[test]
    fn folding_treats_a_group_as_one_frequency((shape, fold) in folds(), seed: u64, distance in 0..5000_i32) {
        let layer = layer(shape, seed);
        let decoupling = rororope(layer.moment.as_ref(), shape, &fold).unwrap();
        let split = decoupling.split_keys(layer.keys.as_ref()).unwrap();
        let per_group = fold.slots_per_group();
        let nope_per_group = shape.key_heads * fold.freqfold() - per_group;
        let frequencies = frequencies(THETA, shape.head_dim);
        let angle = |group: usize| frequencies[group * fold.freqfold()] * f64::from(distance);
        for head in 0..shape.query_heads {
            let before = original_score(&layer, shape, head, |pair| angle(pair / fold.freqfold()));
            let slot = |m: usize| angle(m / per_group);
            let after = split_score(&layer, &decoupling, &split, head, slot, |n| angle(n / nope_per_group));
            prop_assert!((before - after).abs() < 1e-10, "head {head}: {before} and {after}");
        }
    }

    /// The first slot of each group has at least the energy of any single pair of any head in that group.
    #[test]
    fn slots_hold_the_most_energy((shape, fold) in folds(), seed: u64) {
        let layer = layer(shape, seed);
        let decoupling = rororope(layer.moment.as_ref(), shape, &fold).unwrap();
        let rope = decoupling.split_keys(layer.keys.as_ref()).unwrap().rope;
        let energy = |matrix: MatRef<'_, f64>, re: usize, im: usize| {
            (0..INPUTS).map(|i| matrix[(re, i)].powi(2) + matrix[(im, i)].powi(2)).sum::<f64>()
        };
        for group in 0..fold.groups() {
            let slot = group * fold.slots_per_group();
            let found = energy(rope.as_ref(), slot, slot + fold.slots());
            for pair in group * fold.freqfold()..(group + 1) * fold.freqfold() {
                for head in 0..shape.key_heads {
                    let row = head * shape.head_dim + pair;
                    prop_assert!(energy(layer.keys.as_ref(), row, row + shape.pairs()) <= found + 1e-10);
                }
            }
        }
    }

    #[test]
    fn one_key_head_without_folding_is_the_identity(repeats in 1..=4_usize, pairs in 1..=16_usize, seed: u64) {
        let shape = HeadShape::new(repeats, 1, 2 * pairs).unwrap();
        let fold = FoldSpec::new(shape, shape.head_dim, 1).unwrap();
        let decoupling = rororope(layer(shape, seed).moment.as_ref(), shape, &fold).unwrap();
        let identity = Mat::<f64>::identity(2 * pairs, 2 * pairs);
        prop_assert_eq!(&decoupling.key_rope, &identity);
        prop_assert_eq!(decoupling.nope_width(), 0);
        for head in 0..repeats {
            prop_assert_eq!(&decoupling.query_rope[head], &identity);
        }
    }

    #[test]
    fn expansion_per_key_head_is_that_of_its_query_heads((shape, fold) in folds(), seed: u64) {
        let layer = layer(shape, seed);
        let decoupling = rororope(layer.moment.as_ref(), shape, &fold).unwrap();
        let nope = decoupling.split_keys(layer.keys.as_ref()).unwrap().nope;
        let per_key = decoupling.expand_nope_grouped(nope.as_ref()).unwrap();
        let d = shape.head_dim;
        prop_assert_eq!(per_key.nrows(), shape.key_width());
        for head in 0..shape.query_heads {
            let expected = &decoupling.key_up[head] * &nope;
            prop_assert!((per_key.subrows(shape.key_head_of(head) * d, d) - &expected).norm_max() < 1e-12);
        }
    }

    /// A moment may be any multiple of the mean; the rotation depends on its shape alone.
    #[test]
    fn the_scale_of_the_moment_does_not_matter((shape, fold) in folds(), seed: u64, power in -60..60_i32) {
        // More inputs than entries of any group: distinct eigenvalues, so the rotation is unique.
        let keys = random(shape.key_width(), 3 * shape.key_width(), seed);
        let moment = &keys * keys.transpose();
        // A power of two scales without rounding.
        let scaled = faer::Scale(2.0_f64.powi(power)) * &moment;
        let one = rororope(moment.as_ref(), shape, &fold).unwrap();
        let other = rororope(scaled.as_ref(), shape, &fold).unwrap();
        prop_assert!((&one.key_rope - &other.key_rope).norm_max() < 1e-6);
    }

    #[test]
    fn every_candidate_is_a_valid_fold((shape, fold) in folds()) {
        let candidates = FoldSpec::candidates(shape, fold.rope_dim()).unwrap();
        prop_assert_eq!(candidates[0], fold.collapse());
        prop_assert!(candidates.windows(2).all(|pair| pair[1] == 2 * pair[0]));
        for freqfold in candidates {
            prop_assert!(FoldSpec::new(shape, fold.rope_dim(), freqfold).is_ok());
        }
    }
}

/// A size as in real models, with fewer inputs than keys: the solver meets repeated eigenvalues.
#[test]
fn a_rank_deficient_moment_of_many_heads_has_an_orthogonal_basis() {
    let shape = HeadShape::new(8, 8, 64).unwrap();
    let layer = layer(shape, 11);
    let decoupling = rororope(layer.moment.as_ref(), shape, &FoldSpec::new(shape, 32, 32).unwrap()).unwrap();
    let basis = faer::concat![[decoupling.key_rope], [decoupling.key_nope]];
    let error = &basis * basis.transpose() - Mat::<f64>::identity(512, 512);
    assert!(error.norm_max() < 1e-12);
    let split = decoupling.split_keys(layer.keys.as_ref()).unwrap();
    // Real and imaginary parts of five inputs span ten directions, all of which fit the one group's sixteen slots.
    assert!(split.nope.norm_max() < 1e-10, "{}", split.nope.norm_max());
}

#[test]
fn slots_carry_the_power_of_their_keys() {
    let shape = HeadShape::new(4, 2, 8).unwrap();
    let layer = layer(shape, 3);
    let fold = FoldSpec::new(shape, 4, 2).unwrap();
    let split = rororope(layer.moment.as_ref(), shape, &fold).unwrap();
    let shares = slot_energy(&split, layer.moment.as_ref()).unwrap();
    assert_eq!((shares.len(), shares[0].len()), (2, 4));
    let power = |pair: usize| -> f64 {
        let dims = (0..2).flat_map(|head| [8 * head + pair, 8 * head + pair + 4]);
        dims.map(|dim| layer.moment[(dim, dim)]).sum()
    };
    let rotary = split.split_keys(layer.keys.as_ref()).unwrap().rope;
    for (slot, shares) in shares.iter().enumerate() {
        let carried: f64 = shares.iter().enumerate().map(|(pair, share)| share * power(pair)).sum();
        let own: f64 = [slot, slot + 2]
            .iter()
            .map(|row| rotary.row(*row).squared_norm_l2())
            .sum();
        assert!((carried - own).abs() < 1e-9 * own, "slot {slot}: {carried} and {own}");
        // Of the pairs of other folds it has nothing.
        assert!(
            shares
                .iter()
                .enumerate()
                .all(|(pair, share)| (pair / 2 == slot) == (*share > 1e-9)),
            "{shares:?}"
        );
    }
    let narrow = Mat::<f64>::zeros(8, 8);
    assert!(matches!(
        slot_energy(&split, narrow.as_ref()),
        Err(RopeError::Shape { .. })
    ));
}

#[test]
fn a_slot_that_is_a_pair_carries_all_of_it() {
    let shape = HeadShape::new(1, 1, 4).unwrap();
    let layer = layer(shape, 5);
    let split = rororope(layer.moment.as_ref(), shape, &FoldSpec::new(shape, 4, 1).unwrap()).unwrap();
    let shares = slot_energy(&split, layer.moment.as_ref()).unwrap();
    for (slot, row) in shares.iter().enumerate() {
        for (pair, share) in row.iter().enumerate() {
            let expected = if slot == pair { 1.0 } else { 0.0 };
            assert!((share - expected).abs() < 1e-9, "{shares:?}");
        }
    }
}

/// Keys without positions stay as they are, and nothing is in the rotary key.
#[test]
fn keys_without_positions_are_kept_whole() {
    let shape = HeadShape::new(4, 2, 4).unwrap();
    let keys = Mat::from_fn(8, 3, |i, j| ((i * 3 + j) as f64).sin());
    let fold = FoldSpec::new(shape, 2, 2).unwrap();
    for split in [
        Decoupling::without_positions(shape, 2),
        KeyRotation::without_positions(shape, &fold).decoupling(),
    ] {
        let both = split.split_keys(keys.as_ref()).unwrap();
        assert_eq!((both.rope.nrows(), both.rope.norm_max()), (2, 0.0));
        assert_eq!(both.nope, keys);
        assert_eq!(split.expand_nope_grouped(both.nope.as_ref()).unwrap(), keys);
        let queries = Mat::from_fn(16, 3, |i, j| (i + j) as f64);
        let rope = split.rope_queries(queries.as_ref()).unwrap();
        assert_eq!((rope.nrows(), rope.norm_max()), (8, 0.0));
    }
}
