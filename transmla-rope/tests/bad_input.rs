//! Bad input is an error that says what would work, never a panic.

use faer::Mat;
use transmla_rope::{FoldSpec, HeadShape, RopeError, rororope};

fn shape() -> HeadShape {
    HeadShape::new(4, 2, 8).unwrap()
}

fn message<T>(result: Result<T, RopeError>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn heads_must_divide_and_be_even() {
    for (query_heads, key_heads) in [(0, 0), (4, 0), (0, 4), (4, 3), (2, 4)] {
        assert!(matches!(
            HeadShape::new(query_heads, key_heads, 8),
            Err(RopeError::Heads { .. })
        ));
    }
    assert_eq!(
        message(HeadShape::new(4, 2, 7)),
        "head_dim must be even and positive, found 7; for example 8"
    );
    assert!(matches!(
        HeadShape::new(4, 2, 0),
        Err(RopeError::HeadDim { head_dim: 0 })
    ));
}

#[test]
fn folds_list_what_would_work() {
    assert_eq!(
        message(FoldSpec::new(shape(), 3, 1)),
        "the rope dimension must be even and divide head_dim 8, found 3; valid values: [2, 4, 8]"
    );
    assert_eq!(
        message(FoldSpec::new(shape(), 4, 3)),
        "freqfold must be a multiple of the collapse 2 and divide the 4 frequencies of a head, found 3; \
         valid values: [2, 4]"
    );
    for freqfold in [0, 1, 8] {
        assert!(matches!(
            FoldSpec::new(shape(), 4, freqfold),
            Err(RopeError::FreqFold { .. })
        ));
    }
    for rope_dim in [0, 6, 16] {
        assert!(matches!(
            FoldSpec::new(shape(), rope_dim, 4),
            Err(RopeError::RopeDim { .. })
        ));
        assert!(matches!(
            FoldSpec::candidates(shape(), rope_dim),
            Err(RopeError::RopeDim { .. })
        ));
    }
}

#[test]
fn a_shape_made_without_new_is_checked_all_the_same() {
    let bad = HeadShape {
        query_heads: 3,
        key_heads: 0,
        head_dim: 5,
    };
    assert_eq!((bad.queries_per_key(), bad.key_head_of(2)), (3, 0));
    assert!(FoldSpec::new(bad, 2, 1).is_err());
    let fold = FoldSpec::new(shape(), 4, 2).unwrap();
    assert!(matches!(
        rororope(Mat::zeros(0, 0).as_ref(), bad, &fold),
        Err(RopeError::Heads { .. })
    ));
}

#[test]
fn moments_must_fit_and_be_finite() {
    let fold = FoldSpec::new(shape(), 4, 2).unwrap();
    for (rows, columns) in [(16, 15), (8, 8), (0, 0)] {
        let moment = Mat::<f64>::zeros(rows, columns);
        assert!(matches!(
            rororope(moment.as_ref(), shape(), &fold),
            Err(RopeError::Shape { .. })
        ));
    }
    for value in [f64::NAN, f64::INFINITY] {
        let mut moment = Mat::<f64>::identity(16, 16);
        moment[(3, 5)] = value;
        let error = message(rororope(moment.as_ref(), shape(), &fold));
        assert_eq!(
            error,
            format!("the key moment must be finite, found {value} at row 3, column 5")
        );
    }
    let other = FoldSpec::new(HeadShape::new(4, 2, 16).unwrap(), 4, 4).unwrap();
    assert!(matches!(
        rororope(Mat::identity(16, 16).as_ref(), shape(), &other),
        Err(RopeError::FoldShape { expected: 16, found: 8 })
    ));
}

#[test]
fn a_moment_of_zero_is_a_valid_moment() {
    let fold = FoldSpec::new(shape(), 4, 2).unwrap();
    let decoupling = rororope(Mat::zeros(16, 16).as_ref(), shape(), &fold).unwrap();
    assert!(decoupling.key_rope.is_all_finite());
}

#[test]
fn weights_must_fit_the_decoupling() {
    let fold = FoldSpec::new(shape(), 4, 2).unwrap();
    let decoupling = rororope(Mat::identity(16, 16).as_ref(), shape(), &fold).unwrap();
    let wrong = Mat::<f64>::zeros(15, 3);
    assert_eq!(
        message(decoupling.split_keys(wrong.as_ref())),
        "the key weights must be [16, any], found [15, 3]"
    );
    assert!(matches!(
        decoupling.rope_queries(wrong.as_ref()),
        Err(RopeError::Shape { .. })
    ));
    assert!(matches!(
        decoupling.expand_nope_grouped(wrong.as_ref()),
        Err(RopeError::Shape { .. })
    ));
    let nan = Mat::from_fn(16, 2, |_, _| f64::NAN);
    assert!(matches!(
        decoupling.split_keys(nan.as_ref()),
        Err(RopeError::NotFinite { .. })
    ));

    let mut broken = decoupling.clone();
    broken.key_up.pop();
    let nope = Mat::<f64>::zeros(12, 3);
    assert!(matches!(
        broken.expand_nope_grouped(nope.as_ref()),
        Err(RopeError::HeadCount {
            expected: 4,
            found: 3,
            ..
        })
    ));
    let mut different = decoupling;
    different.key_up[3][(0, 0)] += 1.0;
    assert!(matches!(
        different.expand_nope_grouped(nope.as_ref()),
        Err(RopeError::HeadsDiffer {
            key_head: 1,
            query_head: 3
        })
    ));
}
