//! What the latent in a metric must keep, for random weights, moments and metrics.

use faer::{Mat, MatRef, Scale};
use proptest::prelude::*;
use transmla_lowrank::{
    KvFactors, KvInput, LowRankError, OutputMetric, metric_pca, principal_components, quadratic_form,
};

use random::random;

mod random;

fn positive(size: usize, seed: u64) -> Mat<f64> {
    let root = random(size, size + 2, seed);
    &root * root.transpose()
}

/// A random layer with heads of equal width, whose query heads see their key head's dimensions.
#[derive(Debug, Clone)]
struct Layer {
    keys: Mat<f64>,
    values: Mat<f64>,
    key_up: Vec<Mat<f64>>,
    value_head_dim: usize,
    metric: OutputMetric,
    moment: Mat<f64>,
}

impl Layer {
    fn new(groups: usize, repeats: usize, head_dim: usize, value_head_dim: usize, seed: u64) -> Self {
        let inputs = groups * (head_dim + value_head_dim) + 3;
        let up = |head: usize| {
            Mat::from_fn(head_dim, groups * head_dim, |i, j| {
                f64::from(u8::from(head / repeats * head_dim + i == j))
            })
        };
        let blocks = |size: usize, seed: u64| (0..groups as u64).map(|g| positive(size, seed ^ (g << 9))).collect();
        Self {
            keys: random(groups * head_dim, inputs, seed),
            values: random(groups * value_head_dim, inputs, seed ^ 1),
            key_up: (0..groups * repeats).map(up).collect(),
            value_head_dim,
            metric: OutputMetric {
                keys: blocks(head_dim, seed ^ 2),
                values: blocks(value_head_dim, seed ^ 3),
            },
            moment: positive(inputs, seed ^ 4),
        }
    }

    fn with_metric(mut self, of_keys: f64, of_values: f64) -> Self {
        let fill = |blocks: &mut Vec<Mat<f64>>, value: f64| {
            let scaled = |block: &Mat<f64>| Scale(value) * Mat::<f64>::identity(block.nrows(), block.nrows());
            *blocks = blocks.iter().map(scaled).collect();
        };
        fill(&mut self.metric.keys, of_keys);
        fill(&mut self.metric.values, of_values);
        self
    }

    fn full_rank(&self) -> usize {
        self.keys.nrows() + self.values.nrows()
    }

    fn solve(&self, rank: usize, regularisation: f64) -> Result<KvFactors, LowRankError> {
        let input = KvInput {
            nope_keys: self.keys.as_ref(),
            values: self.values.as_ref(),
            key_up: &self.key_up,
            value_head_dim: self.value_head_dim,
        };
        metric_pca(&input, self.moment.as_ref(), &self.metric, rank, regularisation)
    }

    /// `[keys; values]`.
    fn stacked(&self) -> Mat<f64> {
        stack(&[&self.keys, &self.values])
    }

    /// The metric as one matrix.
    fn whole_metric(&self) -> Mat<f64> {
        let mut whole = Mat::zeros(self.full_rank(), self.full_rank());
        let mut start = 0;
        for block in self.metric.keys.iter().chain(&self.metric.values) {
            let size = block.nrows();
            whole.as_mut().submatrix_mut(start, start, size, size).copy_from(block);
            start += size;
        }
        whole
    }

    /// Keys and values that the factors reproduce, of the first query head of each key head.
    fn reproduced(&self, factors: &KvFactors) -> Mat<f64> {
        let heads = || (0..self.key_up.len()).step_by(self.key_up.len() / self.metric.values.len());
        let up: Vec<&Mat<f64>> = heads()
            .map(|head| &factors.key_up[head])
            .chain(heads().map(|head| &factors.value_up[head]))
            .collect();
        stack(&up) * &factors.down
    }

    /// `tr(M E C Eᵀ)`.
    fn cost(&self, reproduced: MatRef<'_, f64>) -> f64 {
        let error = self.stacked() - reproduced;
        trace(&(self.whole_metric() * &error * &self.moment * error.transpose()))
    }

    /// All eigenvalues of `M^½ Y C Yᵀ M^½`, descending, through a Cholesky factor of M.
    fn spectrum(&self) -> Vec<f64> {
        let whole = self.whole_metric();
        let factor = whole.llt(faer::Side::Lower).unwrap();
        let rows = factor.L().transpose() * self.stacked();
        let form = quadratic_form(rows.as_ref(), self.moment.as_ref()).unwrap();
        principal_components(form.as_ref(), 1, 0.0).unwrap().values
    }
}

fn stack(parts: &[&Mat<f64>]) -> Mat<f64> {
    let mut whole = Mat::zeros(parts.iter().map(|part| part.nrows()).sum(), parts[0].ncols());
    let mut start = 0;
    for part in parts {
        whole.as_mut().subrows_mut(start, part.nrows()).copy_from(part);
        start += part.nrows();
    }
    whole
}

fn trace(matrix: &Mat<f64>) -> f64 {
    (0..matrix.nrows()).map(|i| matrix[(i, i)]).sum()
}

/// Layers with a rank that fits them.
fn layers() -> impl Strategy<Value = (Layer, usize)> {
    (1..=3_usize, 1..=2_usize, 1..=4_usize, 1..=3_usize, any::<u64>()).prop_flat_map(
        |(groups, repeats, head_dim, value_head_dim, seed)| {
            let layer = Layer::new(groups, repeats, head_dim, value_head_dim, seed);
            let full = layer.full_rank();
            (Just(layer), 1..=full)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn at_full_rank_nothing_is_lost((layer, _) in layers(), regularisation in 0.0..0.1_f64) {
        let factors = layer.solve(layer.full_rank(), regularisation).unwrap();
        let (repeats, d) = (layer.key_up.len() / layer.metric.keys.len(), layer.metric.keys[0].nrows());
        for head in 0..layer.key_up.len() {
            let keys = &factors.key_up[head] * &factors.down - layer.keys.subrows(head / repeats * d, d);
            prop_assert!(keys.norm_max() < 1e-8, "keys of head {head}: {}", keys.norm_max());
            let width = layer.value_head_dim;
            let values = &factors.value_up[head] * &factors.down - layer.values.subrows(head / repeats * width, width);
            prop_assert!(values.norm_max() < 1e-8, "values of head {head}: {}", values.norm_max());
        }
        prop_assert!((factors.kept_energy - 1.0).abs() < 1e-12);
    }

    #[test]
    fn the_cost_is_the_sum_of_discarded_eigenvalues((layer, rank) in layers()) {
        let factors = layer.solve(rank, 0.0).unwrap();
        let spectrum = layer.spectrum();
        let (discarded, total): (f64, f64) = (spectrum[rank..].iter().sum(), spectrum.iter().sum());
        let cost = layer.cost(layer.reproduced(&factors).as_ref());
        prop_assert!((cost - discarded).abs() < 1e-9 * total, "{cost} and {discarded}");
        prop_assert!((factors.kept_energy - (1.0 - discarded / total)).abs() < 1e-9);
        prop_assert!((factors.spectrum[rank..].iter().sum::<f64>() - discarded).abs() < 1e-9 * total);
        prop_assert_eq!(factors.ratio, 1.0);
    }

    #[test]
    fn no_other_latent_costs_less((layer, rank) in layers(), seed: u64, step in 1e-4..1.0_f64) {
        let factors = layer.solve(rank, 0.0).unwrap();
        let cost = layer.cost(layer.reproduced(&factors).as_ref());
        // The best reconstruction from other latents: near ours, and random.
        let noise = random(rank, layer.moment.nrows(), seed);
        for down in [&factors.down + Scale(step) * &noise, noise] {
            let stacked = layer.stacked();
            let gram = quadratic_form(down.as_ref(), layer.moment.as_ref()).unwrap();
            let cross = &stacked * &layer.moment * down.transpose();
            let up = faer::linalg::solvers::Solve::solve(&gram.full_piv_lu(), cross.transpose());
            let other = layer.cost((up.transpose() * &down).as_ref());
            prop_assert!(other >= cost - 1e-9 * (cost + layer.spectrum()[0]), "{other} under {cost}");
        }
    }

    #[test]
    fn without_a_metric_it_is_plain_pca((layer, rank) in layers(), scale in prop::sample::select(vec![1.0, 1e-30, 1e12])) {
        let layer = layer.with_metric(scale, scale);
        let factors = layer.solve(rank, 0.0).unwrap();
        let stacked = layer.stacked();
        let form = quadratic_form(stacked.as_ref(), layer.moment.as_ref()).unwrap();
        let basis = principal_components(form.as_ref(), rank, 0.0).unwrap().vectors;
        let plain = layer.cost((&basis * basis.transpose() * &stacked).as_ref());
        let ours = layer.cost(layer.reproduced(&factors).as_ref());
        prop_assert!((ours - plain).abs() < 1e-9 * layer.spectrum()[0], "{ours} and {plain}");
    }

    #[test]
    fn latents_have_unit_power_and_do_not_correlate((layer, rank) in layers(), regularisation in 0.0..0.1_f64) {
        let factors = layer.solve(rank, regularisation).unwrap();
        let power = quadratic_form(factors.down.as_ref(), layer.moment.as_ref()).unwrap();
        prop_assert!((power - Mat::<f64>::identity(rank, rank)).norm_max() < 1e-7);
    }

    /// What costs nothing is reproduced last: a latent of the values' rank reproduces the values alone.
    #[test]
    fn what_costs_nothing_comes_last((layer, _) in layers(), regularisation in 0.0..0.1_f64) {
        let layer = layer.with_metric(0.0, 1.0);
        let factors = layer.solve(layer.values.nrows(), regularisation).unwrap();
        let error = layer.reproduced(&factors) - layer.stacked();
        let values = error.subrows(layer.keys.nrows(), layer.values.nrows());
        prop_assert!(values.norm_max() < 1e-4, "{}", values.norm_max());
        prop_assert!(factors.key_up.iter().all(|up| up.is_all_finite()));
    }
}

#[test]
fn a_metric_of_zero_counts_everything_alike() {
    let layer = Layer::new(2, 2, 2, 3, 7);
    let plain = layer.clone().with_metric(1.0, 1.0).solve(4, 0.0).unwrap();
    let zero = layer.with_metric(0.0, 0.0).solve(4, 0.0).unwrap();
    assert!((plain.kv_b() * &plain.down - zero.kv_b() * &zero.down).norm_max() < 1e-8);
}

#[test]
fn inputs_of_low_rank_make_no_huge_weights() {
    let mut layer = Layer::new(2, 1, 4, 4, 11);
    let inputs = layer.moment.nrows();
    let few = random(inputs, 3, 5);
    layer.moment = &few * few.transpose();
    let factors = layer.solve(16, 1e-3).unwrap();
    assert!(factors.down.norm_max() < 1e7 && factors.kv_b().is_all_finite());
    assert!(layer.cost(layer.reproduced(&factors).as_ref()).abs() < 1e-8);
}

#[test]
fn keys_may_be_absent() {
    let mut layer = Layer::new(2, 2, 2, 3, 13);
    let inputs = layer.moment.nrows();
    layer.keys = Mat::zeros(0, inputs);
    layer.key_up = vec![Mat::zeros(2, 0); 4];
    for blocks in [vec![], vec![Mat::zeros(0, 0)]] {
        layer.metric.keys = blocks;
        let factors = layer.solve(6, 1e-3).unwrap();
        assert!((&factors.value_up[3] * &factors.down - layer.values.subrows(3, 3)).norm_max() < 1e-9);
        assert_eq!(factors.key_up[0], Mat::<f64>::zeros(2, 6));
    }
}

#[test]
fn bad_input_is_an_error() {
    let attempt = |change: &dyn Fn(&mut Layer), rank: usize, regularisation: f64| {
        let mut layer = Layer::new(2, 2, 2, 3, 17);
        change(&mut layer);
        layer.solve(rank, regularisation).map(|_| ())
    };
    let message = |change: &dyn Fn(&mut Layer)| attempt(change, 3, 1e-3).unwrap_err().to_string();
    assert_eq!(attempt(&|_| (), 3, 1e-3), Ok(()));

    for rank in [0, 11] {
        let result = attempt(&|_| (), rank, 1e-3);
        assert!(matches!(result, Err(LowRankError::Rank { max: 10, .. })));
    }
    for regularisation in [-1.0, f64::NAN, f64::INFINITY] {
        let result = attempt(&|_| (), 3, regularisation);
        assert!(matches!(result, Err(LowRankError::Damping { .. })));
    }
    assert_eq!(
        message(&|layer| layer.moment = Mat::zeros(13, 12)),
        "the moment of the inputs must be [13, 13], found [13, 12]"
    );
    assert_eq!(
        message(&|layer| layer.values = Mat::zeros(6, 12)),
        "the value weights must be [any, 13], found [6, 12]"
    );
    assert_eq!(
        message(&|layer| layer.keys = Mat::zeros(4, 12)),
        "the NoPE key weights must be [any, 13], found [4, 12]"
    );
    assert_eq!(
        message(&|layer| layer.metric.keys[1] = Mat::zeros(2, 3)),
        "block 1 of the key metric must be [2, 2], found [2, 3]"
    );
    assert_eq!(
        message(&|layer| layer.metric.values.truncate(1)),
        "the value metric with all its blocks must be [6, 6], found [3, 3]"
    );
    assert_eq!(
        message(&|layer| layer.key_up[2] = Mat::zeros(2, 5)),
        "key_up of query head 2 must be [2, 4], found [2, 5]"
    );
    for heads in [0, 1, 3] {
        let result = attempt(&|layer| layer.key_up.truncate(heads), 3, 1e-3);
        assert!(matches!(result, Err(LowRankError::HeadCount { value_heads: 2, .. })));
    }
    for width in [0, 4] {
        let result = attempt(&|layer| layer.value_head_dim = width, 3, 1e-3);
        assert!(matches!(result, Err(LowRankError::ValueHeadDim { .. })));
    }
    let result = attempt(&|layer| layer.values = Mat::zeros(0, 13), 3, 1e-3);
    assert!(matches!(result, Err(LowRankError::Empty { .. })));

    for bad in [f64::NAN, f64::NEG_INFINITY] {
        let changes: [&dyn Fn(&mut Layer); 6] = [
            &|layer| layer.keys[(1, 2)] = bad,
            &|layer| layer.values[(1, 2)] = bad,
            &|layer| layer.moment[(1, 2)] = bad,
            &|layer| layer.key_up[3][(0, 1)] = bad,
            &|layer| layer.metric.keys[0][(1, 1)] = bad,
            &|layer| layer.metric.values[1][(2, 0)] = bad,
        ];
        for (index, change) in changes.into_iter().enumerate() {
            let result = attempt(change, 3, 1e-3);
            assert!(
                matches!(result, Err(LowRankError::NotFinite { .. })),
                "{index}: {result:?}"
            );
        }
    }
    // Numbers that overflow on the way.
    assert!(attempt(&|layer| layer.metric.keys[0][(0, 0)] = f64::MAX, 3, 1e-3).is_err());
    assert!(attempt(&|layer| layer.moment[(0, 0)] = f64::MAX, 3, 1e-3).is_err());
}
