//! Bad input is an error that gives the range, never a panic.

use faer::Mat;
use transmla_lowrank::{
    JointPca, KvFactors, KvInput, LowRankError, balance_ratio, joint_pca, principal_components, quadratic_form,
    query_pca,
};

const SPEC: JointPca = JointPca {
    rank: 3,
    balance: 1.0,
    skipped_values: 0,
    damping: 0.01,
};

/// Two query heads of two dimensions on one value head, inputs of five.
struct Layer {
    nope_keys: Mat<f64>,
    values: Mat<f64>,
    key_up: Vec<Mat<f64>>,
    value_head_dim: usize,
    moment: Mat<f64>,
}

fn layer() -> Layer {
    Layer {
        nope_keys: Mat::from_fn(3, 5, |i, j| (i + j) as f64),
        values: Mat::from_fn(2, 5, |i, j| (i * j) as f64),
        key_up: vec![Mat::identity(2, 3); 2],
        value_head_dim: 2,
        moment: Mat::identity(5, 5),
    }
}

impl Layer {
    fn run(&self, spec: JointPca) -> Result<KvFactors, LowRankError> {
        let input = KvInput {
            nope_keys: self.nope_keys.as_ref(),
            values: self.values.as_ref(),
            key_up: &self.key_up,
            value_head_dim: self.value_head_dim,
        };
        joint_pca(&input, self.moment.as_ref(), &spec)
    }
}

fn message<T>(result: Result<T, LowRankError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn ranks_out_of_range_name_the_range() {
    assert!(layer().run(SPEC).is_ok());
    for rank in [0, 6] {
        let error = message(layer().run(JointPca { rank, ..SPEC }));
        assert_eq!(error, format!("the rank must be in 1..=5, found {rank}"));
    }
    let moment = Mat::<f64>::identity(5, 5);
    assert_eq!(
        message(principal_components(moment.as_ref(), 6, 0.0)),
        "the rank must be in 1..=5, found 6"
    );
    assert!(matches!(
        principal_components(moment.as_ref(), 0, 0.0),
        Err(LowRankError::Rank { .. })
    ));
    let queries = Mat::<f64>::zeros(4, 5);
    for rank in [0, 5] {
        let error = message(query_pca(queries.as_ref(), moment.as_ref(), rank, 0.0));
        assert_eq!(error, format!("the query rank must be in 1..=4, found {rank}"));
    }
}

#[test]
fn choices_must_be_numbers_in_range() {
    for balance in [0.0, -1.0, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            layer().run(JointPca { balance, ..SPEC }),
            Err(LowRankError::Balance { .. })
        ));
    }
    for damping in [-0.1, f64::NAN, f64::INFINITY] {
        assert!(matches!(
            layer().run(JointPca { damping, ..SPEC }),
            Err(LowRankError::Damping { .. })
        ));
        let moment = Mat::<f64>::identity(5, 5);
        assert!(matches!(
            principal_components(moment.as_ref(), 1, damping),
            Err(LowRankError::Damping { .. })
        ));
    }
    let error = message(layer().run(JointPca {
        skipped_values: 2,
        ..SPEC
    }));
    assert_eq!(error, "the skipped values must be in 0..2, found 2");
}

#[test]
fn matrices_must_fit() {
    type Change = fn(&mut Layer);
    let changes: [Change; 6] = [
        |l| l.nope_keys = Mat::zeros(3, 4),
        |l| l.values = Mat::zeros(2, 6),
        |l| l.moment = Mat::zeros(5, 4),
        |l| l.moment = Mat::zeros(4, 4),
        |l| l.key_up[1] = Mat::zeros(2, 2),
        |l| l.key_up[1] = Mat::zeros(1, 3),
    ];
    for change in changes {
        let mut layer = layer();
        change(&mut layer);
        assert!(matches!(layer.run(SPEC), Err(LowRankError::Shape { .. })));
    }
}

#[test]
fn heads_must_fit() {
    for value_head_dim in [0, 3] {
        let layer = Layer {
            value_head_dim,
            ..layer()
        };
        assert!(matches!(layer.run(SPEC), Err(LowRankError::ValueHeadDim { .. })));
    }
    // Two value heads of one dimension: three query heads, or none, cannot be dealt to them.
    for heads in [0, 3] {
        let layer = Layer {
            value_head_dim: 1,
            key_up: vec![Mat::zeros(2, 3); heads],
            ..layer()
        };
        assert!(matches!(
            layer.run(SPEC),
            Err(LowRankError::HeadCount { value_heads: 2, .. })
        ));
    }
    let empty = Layer {
        values: Mat::zeros(0, 5),
        ..layer()
    };
    assert!(matches!(empty.run(SPEC), Err(LowRankError::Empty { .. })));
}

#[test]
fn nans_are_found_and_named() {
    type Change = fn(&mut Layer);
    let changes: [(Change, &str); 4] = [
        (|l| l.nope_keys[(1, 2)] = f64::NAN, "the NoPE key weights"),
        (|l| l.values[(1, 2)] = f64::NAN, "the value weights"),
        (|l| l.moment[(1, 2)] = f64::NAN, "the moment of the inputs"),
        (|l| l.key_up[0][(1, 2)] = f64::NAN, "key_up"),
    ];
    for (change, what) in changes {
        let mut layer = layer();
        change(&mut layer);
        assert_eq!(
            message(layer.run(SPEC)),
            format!("{what} must be finite, found NaN at row 1, column 2")
        );
    }
    let (good, bad) = (Mat::<f64>::identity(5, 5), Mat::from_fn(5, 5, |_, _| f64::INFINITY));
    let (good, bad) = (good.as_ref(), bad.as_ref());
    assert!(matches!(
        principal_components(bad, 1, 0.0),
        Err(LowRankError::NotFinite { .. })
    ));
    assert!(matches!(quadratic_form(bad, good), Err(LowRankError::NotFinite { .. })));
    assert!(matches!(quadratic_form(good, bad), Err(LowRankError::NotFinite { .. })));
    assert!(matches!(
        query_pca(bad, good, 1, 0.0),
        Err(LowRankError::NotFinite { .. })
    ));
    assert!(matches!(
        balance_ratio(bad, good, 0, 1.0),
        Err(LowRankError::NotFinite { .. })
    ));
}

#[test]
fn finite_weights_whose_products_overflow_are_an_error() {
    let huge = Layer {
        values: Mat::from_fn(2, 5, |_, _| 1e200),
        ..layer()
    };
    assert!(matches!(huge.run(SPEC), Err(LowRankError::NotFinite { .. })));
    let form = quadratic_form(huge.values.as_ref(), huge.moment.as_ref());
    assert!(matches!(form, Err(LowRankError::NotFinite { .. })));
}

#[test]
fn moments_must_be_square_and_not_empty() {
    let wide = Mat::<f64>::zeros(2, 3);
    assert!(matches!(
        principal_components(wide.as_ref(), 1, 0.0),
        Err(LowRankError::Shape { .. })
    ));
    assert!(matches!(
        quadratic_form(wide.as_ref(), wide.as_ref()),
        Err(LowRankError::Shape { .. })
    ));
    let none = Mat::<f64>::zeros(0, 0);
    assert!(matches!(
        principal_components(none.as_ref(), 1, 0.0),
        Err(LowRankError::Empty { .. })
    ));
    assert!(matches!(
        query_pca(none.as_ref(), none.as_ref(), 1, 0.0),
        Err(LowRankError::Empty { .. })
    ));
}
