//! What a factorisation must keep, for random weights and moments.

use faer::{Mat, Scale};
use proptest::prelude::*;
use transmla_lowrank::{
    JointPca, KvFactors, KvInput, balance_ratio, joint_pca, principal_components, quadratic_form, query_pca,
};

use random::random;

mod random;

/// A random layer: weights as in [`KvInput`], owned, and the second moment of its inputs.
#[derive(Debug)]
struct Layer {
    nope_keys: Mat<f64>,
    values: Mat<f64>,
    key_up: Vec<Mat<f64>>,
    value_head_dim: usize,
    queries_per_value: usize,
    moment: Mat<f64>,
}

impl Layer {
    fn input(&self) -> KvInput<'_> {
        KvInput {
            nope_keys: self.nope_keys.as_ref(),
            values: self.values.as_ref(),
            key_up: &self.key_up,
            value_head_dim: self.value_head_dim,
        }
    }

    fn full_rank(&self) -> usize {
        self.nope_keys.nrows() + self.values.nrows()
    }

    /// Mean squared error (under the moment) of the balanced keys and values that the latent reproduces.
    fn balanced_error(&self, factors: &KvFactors) -> f64 {
        // The latent is orthonormal in the balanced coordinates, so projecting back is the transpose of going there.
        let (keys, full) = (self.nope_keys.nrows(), self.full_rank());
        let stacked = Mat::from_fn(full, self.moment.nrows(), |i, j| {
            if i < keys {
                self.nope_keys[(i, j)] / factors.ratio
            } else {
                self.values[(i - keys, j)]
            }
        });
        let whole = quadratic_form(stacked.as_ref(), self.moment.as_ref()).unwrap();
        let kept = quadratic_form(factors.down.as_ref(), self.moment.as_ref()).unwrap();
        trace(&whole) - trace(&kept)
    }
}

fn trace(matrix: &Mat<f64>) -> f64 {
    (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum()
}

fn layers() -> impl Strategy<Value = Layer> {
    (
        0..=7_usize,
        1..=3_usize,
        1..=4_usize,
        1..=3_usize,
        1..=10_usize,
        any::<u64>(),
    )
        .prop_map(|(nope, groups, value_head_dim, queries_per_value, width, seed)| Layer {
            nope_keys: Scale(5.0) * random(nope, width, seed),
            values: random(groups * value_head_dim, width, seed ^ 1),
            // Query heads of a group share their matrix, as after decoupling.
            key_up: (0..groups * queries_per_value)
                .map(|head| random(4, nope, seed ^ (2 + (head / queries_per_value) as u64)))
                .collect(),
            value_head_dim,
            queries_per_value,
            moment: quadratic_form(
                random(width, 3 * width, seed ^ 99).as_ref(),
                Mat::<f64>::identity(3 * width, 3 * width).as_ref(),
            )
            .unwrap(),
        })
}

fn spec(rank: usize) -> JointPca {
    JointPca {
        rank,
        balance: 1.0,
        skipped_values: 0,
        damping: 0.01,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn full_rank_reproduces_keys_and_values(layer in layers(), balance in 0.1..10.0) {
        let spec = JointPca { balance, ..spec(layer.full_rank()) };
        let factors = joint_pca(&layer.input(), layer.moment.as_ref(), &spec).unwrap();
        prop_assert!((factors.kept_energy - 1.0).abs() < 1e-12);
        for head in 0..layer.key_up.len() {
            let key_error = &factors.key_up[head] * &factors.down - &layer.key_up[head] * &layer.nope_keys;
            prop_assert!(key_error.norm_max() < 1e-10, "keys of head {head}: {}", key_error.norm_max());
            let first = head / layer.queries_per_value * layer.value_head_dim;
            let value_error =
                &factors.value_up[head] * &factors.down - layer.values.subrows(first, layer.value_head_dim);
            prop_assert!(value_error.norm_max() < 1e-10, "values of head {head}: {}", value_error.norm_max());
        }
        // A wider latent has zeros in it and is the same.
        let wide = factors.clone().widened(layer.full_rank() + 2);
        prop_assert_eq!(wide.down.nrows(), layer.full_rank() + 2);
        for head in 0..layer.key_up.len() {
            prop_assert!((&wide.key_up[head] * &wide.down - &factors.key_up[head] * &factors.down).norm_max() < 1e-12);
            prop_assert!((&wide.value_up[head] * &wide.down - &factors.value_up[head] * &factors.down).norm_max() < 1e-12);
        }
    }

    #[test]
    fn the_error_is_the_discarded_eigenvalues(layer in layers(), share in 0.0..1.0) {
        let rank = 1 + (share * layer.full_rank() as f64) as usize;
        let spec = JointPca { damping: 0.0, ..spec(rank) };
        let factors = joint_pca(&layer.input(), layer.moment.as_ref(), &spec).unwrap();
        let keys = layer.nope_keys.nrows();
        let balanced = Mat::from_fn(layer.full_rank(), layer.moment.nrows(), |i, j| {
            if i < keys { layer.nope_keys[(i, j)] / factors.ratio } else { layer.values[(i - keys, j)] }
        });
        let joint = quadratic_form(balanced.as_ref(), layer.moment.as_ref()).unwrap();
        let components = principal_components(joint.as_ref(), rank, 0.0).unwrap();
        let discarded: f64 = components.values[rank..].iter().sum();
        let total = trace(&joint);
        prop_assert!((layer.balanced_error(&factors) - discarded).abs() < 1e-10 * total);
        prop_assert!((factors.kept_energy - (1.0 - discarded / total)).abs() < 1e-10);
        prop_assert_eq!(factors.spectrum.len(), layer.full_rank());
        prop_assert!((factors.spectrum[rank..].iter().sum::<f64>() - discarded).abs() < 1e-10 * total);
        // The same error measured as it arises: y - R Rᵀ y, under the moment.
        let projected = &components.vectors * (components.vectors.transpose() * &balanced);
        let residual = quadratic_form((&balanced - &projected).as_ref(), layer.moment.as_ref()).unwrap();
        prop_assert!((trace(&residual) - discarded).abs() < 1e-10 * total);
    }

    #[test]
    fn more_rank_is_never_worse(layer in layers()) {
        let mut last = f64::INFINITY;
        let mut kept = 0.0;
        for rank in 1..=layer.full_rank() {
            let factors = joint_pca(&layer.input(), layer.moment.as_ref(), &spec(rank)).unwrap();
            let error = layer.balanced_error(&factors);
            prop_assert!(error <= last + 1e-9, "rank {rank}: {error} after {last}");
            prop_assert!((kept - 1e-12..=1.0).contains(&factors.kept_energy));
            (last, kept) = (error, factors.kept_energy);
        }
    }

    #[test]
    fn the_latent_is_uncorrelated_and_descending(layer in layers(), share in 0.0..1.0) {
        let rank = 1 + (share * layer.full_rank() as f64) as usize;
        let factors = joint_pca(&layer.input(), layer.moment.as_ref(), &spec(rank)).unwrap();
        let latent = quadratic_form(factors.down.as_ref(), layer.moment.as_ref()).unwrap();
        let scale = trace(&latent);
        for i in 0..rank {
            for j in 0..i {
                prop_assert!(latent[(i, j)].abs() < 1e-10 * scale);
                prop_assert!(latent[(i, i)] <= latent[(j, j)] + 1e-10 * scale);
            }
        }
    }

    #[test]
    fn balanced_keys_are_as_large_as_values(layer in layers(), balance in 0.1..10.0, scale in 1e-9..1e9) {
        prop_assume!(layer.nope_keys.nrows() > 0);
        let spec = JointPca { balance, ..spec(1) };
        let ratio = joint_pca(&layer.input(), layer.moment.as_ref(), &spec).unwrap().ratio;
        let norms = |rows: &Mat<f64>| {
            let moment = quadratic_form(rows.as_ref(), layer.moment.as_ref()).unwrap();
            (0..rows.nrows()).map(|i| moment[(i, i)].sqrt()).sum::<f64>() / rows.nrows() as f64
        };
        let balanced = norms(&(Scale(1.0 / ratio) * &layer.nope_keys));
        prop_assert!((balanced / (balance * norms(&layer.values)) - 1.0).abs() < 1e-10);
        // Sums of moments serve as well as means.
        let scaled = Scale(scale) * &layer.moment;
        let again = joint_pca(&layer.input(), scaled.as_ref(), &spec).unwrap().ratio;
        prop_assert!((again / ratio - 1.0).abs() < 1e-10);
    }

    #[test]
    fn kv_b_is_keys_then_values_per_head(layer in layers()) {
        let factors = joint_pca(&layer.input(), layer.moment.as_ref(), &spec(1)).unwrap();
        let kv_b = factors.kv_b();
        let block = 4 + layer.value_head_dim;
        prop_assert_eq!((kv_b.nrows(), kv_b.ncols()), (layer.key_up.len() * block, 1));
        for head in 0..layer.key_up.len() {
            prop_assert_eq!(kv_b.subrows(head * block, 4), factors.key_up[head].as_ref());
            let values = kv_b.subrows(head * block + 4, layer.value_head_dim);
            prop_assert_eq!(values, factors.value_up[head].as_ref());
        }
    }

    #[test]
    fn full_rank_queries_are_exact_and_up_is_orthonormal(rows in 1..=12_usize, width in 1..=12_usize, seed: u64) {
        let queries = random(rows, width, seed);
        let inputs = random(width, 2 * width, seed ^ 1);
        let moment = &inputs * inputs.transpose();
        let mut last = 0.0;
        for rank in 1..=rows {
            let factors = query_pca(queries.as_ref(), moment.as_ref(), rank, 0.01).unwrap();
            let gram = factors.up.transpose() * &factors.up - Mat::<f64>::identity(rank, rank);
            prop_assert!(gram.norm_max() < 1e-12);
            prop_assert!(factors.kept_energy >= last - 1e-12);
            last = factors.kept_energy;
        }
        let factors = query_pca(queries.as_ref(), moment.as_ref(), rows, 0.01).unwrap();
        prop_assert!((&factors.up * &factors.down - &queries).norm_max() < 1e-12);
    }

    #[test]
    fn components_are_the_eigenvectors(size in 1..=20_usize, seed: u64, damping in 0.0..1.0) {
        let half = random(size, 2 * size, seed);
        let moment = &half * half.transpose();
        let components = principal_components(moment.as_ref(), size, damping).unwrap();
        prop_assert!(components.values.windows(2).all(|pair| pair[0] >= pair[1]));
        prop_assert!((components.shift - damping * trace(&moment) / size as f64).abs() < 1e-10);
        for (i, value) in components.values.iter().enumerate() {
            let vector = components.vectors.col(i);
            let error = &moment * vector - Scale(value - components.shift) * vector;
            prop_assert!(error.norm_l2() < 1e-9, "{}", error.norm_l2());
            let largest = vector.iter().fold(0.0_f64, |best, &x| if x.abs() > best.abs() { x } else { best });
            prop_assert!(largest > 0.0);
        }
    }

    #[test]
    fn the_quadratic_form_is_the_moment_of_the_rows(rows in 0..=9_usize, width in 1..=9_usize, seed: u64) {
        let (map, inputs) = (random(rows, width, seed), random(width, 7, seed ^ 1));
        let form = quadratic_form(map.as_ref(), (&inputs * inputs.transpose()).as_ref()).unwrap();
        let mapped = &map * &inputs;
        prop_assert!((&mapped * mapped.transpose() - &form).norm_max() < 1e-12 || rows == 0);
        prop_assert_eq!(form.transpose().to_owned(), form);
    }
}

#[test]
fn the_ratio_is_a_quotient_of_mean_norms() {
    let keys = Mat::from_fn(2, 2, |i, j| if i == j { [4.0, 16.0][i] } else { 0.5 });
    let values = Mat::from_fn(3, 3, |i, j| if i == j { [100.0, 1.0, 4.0][i] } else { 0.0 });
    let ratio = |skipped, balance| balance_ratio(keys.as_ref(), values.as_ref(), skipped, balance).unwrap();
    assert_eq!(ratio(1, 1.0), 3.0 / 1.5);
    assert_eq!(ratio(1, 2.0), 3.0 / 3.0);
    assert_eq!(ratio(0, 1.0), 3.0 / (13.0 / 3.0));
}

#[test]
fn without_keys_or_energy_the_ratio_is_one() {
    let (none, zero, one) = (Mat::zeros(0, 0), Mat::zeros(2, 2), Mat::identity(2, 2));
    for (keys, values) in [
        (&none, &one),
        (&none, &none),
        (&zero, &one),
        (&one, &zero),
        (&zero, &zero),
    ] {
        assert_eq!(balance_ratio(keys.as_ref(), values.as_ref(), 0, 1.0).unwrap(), 1.0);
    }
}

#[test]
fn inputs_of_zero_have_a_latent_too() {
    let (keys, values) = (Mat::<f64>::zeros(2, 3), Mat::<f64>::zeros(2, 3));
    let key_up = [Mat::<f64>::identity(2, 2)];
    let input = KvInput {
        nope_keys: keys.as_ref(),
        values: values.as_ref(),
        key_up: &key_up,
        value_head_dim: 2,
    };
    let factors = joint_pca(&input, Mat::<f64>::zeros(3, 3).as_ref(), &spec(2)).unwrap();
    assert_eq!((factors.ratio, factors.kept_energy), (1.0, 1.0));
    assert!(factors.kv_b().is_all_finite());
}

/// Beyond 128 rows the solver divides and conquers, where repeated eigenvalues are the hard case.
#[test]
fn large_degenerate_moments_have_orthonormal_components() {
    let size = 200;
    let thin = random(size, 3, 7);
    let blocks = Mat::from_fn(size, size, |i, j| if i / 10 == j / 10 { 1.0 } else { 0.0 });
    for moment in [
        Mat::zeros(size, size),
        Mat::identity(size, size),
        &thin * thin.transpose(),
        blocks,
    ] {
        let components = principal_components(moment.as_ref(), size, 0.01).unwrap();
        let gram = components.vectors.transpose() * &components.vectors - Mat::<f64>::identity(size, size);
        assert!(gram.norm_max() < 1e-12);
        let back = Mat::from_fn(size, size, |i, j| components.vectors[(i, j)] * components.values[j])
            * components.vectors.transpose();
        let damped = &moment + Scale(components.shift) * Mat::<f64>::identity(size, size);
        assert!((back - damped).norm_max() < 1e-10);
    }
}
