//! The fused attention of the CPU against plain tensor operations, and its gradient against burn's autodiff.

use burn::tensor::{Device, Distribution, Tensor};
use proptest::prelude::*;
use transmla_core::kernels::{
    AttentionParameters, attend, attention_gradients, plain_attend, plain_attention_gradients,
};

fn random(dims: [usize; 4], spread: f64) -> Tensor<4> {
    Tensor::random(dims, Distribution::Normal(0.0, spread), &Device::flex())
}

fn difference(a: Tensor<4>, b: Tensor<4>) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).abs().max().into_scalar()
}

struct Case {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    output: Tensor<4>,
}

impl Case {
    fn new([batch, groups, shared, new, past, width, value_width]: [usize; 7]) -> Self {
        let tokens = past + new;
        Self {
            q: random([batch, groups * shared, new, width], 2.0),
            k: random([batch, groups, tokens, width], 2.0),
            v: random([batch, groups, tokens, value_width], 1.0),
            output: random([batch, groups * shared, new, value_width], 1.0),
        }
    }

    /// The ordinary attention parameters of these widths.
    fn plain(&self) -> AttentionParameters {
        AttentionParameters::of_width(self.q.dims()[3])
    }

    /// The attention parameters that Gemma has, with a window.
    fn bounded(&self, window: usize) -> AttentionParameters {
        AttentionParameters {
            scale: 0.3,
            softcap: Some(3.0),
            window: Some(window),
        }
    }

    fn check(&self, parameters: &AttentionParameters) {
        let (q, k, v) = (self.q.clone(), self.k.clone(), self.v.clone());
        let fused = attend(q.clone(), k.clone(), v.clone(), parameters);
        assert!(difference(fused, plain_attend(q.clone(), k.clone(), v.clone(), parameters)) < 1e-5);
        let fused = attention_gradients(q.clone(), k.clone(), v.clone(), self.output.clone(), parameters);
        let plain = plain_attention_gradients(q, k, v, self.output.clone(), parameters);
        for (fused, plain) in [(fused.q, plain.q), (fused.k, plain.k), (fused.v, plain.v)] {
            let size: f32 = plain.clone().abs().max().into_scalar();
            assert!(difference(fused, plain) < 2e-5 * size.max(1.0));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn fused_equals_plain(
        batch in 1usize..3, groups in 1usize..4, shared in 1usize..4, new in 1usize..140, past in 0usize..70,
        width in 1usize..20, value_width in 1usize..20, window in 1usize..220, bounded: bool,
    ) {
        let case = Case::new([batch, groups, shared, new, past, width, value_width]);
        case.check(&case.plain());
        let parameters = case.bounded(window);
        case.check(&AttentionParameters { softcap: parameters.softcap.filter(|_| bounded), ..parameters });
    }
}

/// Real dimensions: SmolLM2's heads over more than one block, and decoding one token.
#[test]
fn fused_equals_plain_at_real_shapes() {
    for shape in [
        [1, 3, 3, 256, 0, 64, 64],
        [2, 9, 1, 70, 129, 96, 64],
        [1, 8, 4, 1, 511, 128, 128],
    ] {
        let case = Case::new(shape);
        case.check(&case.plain());
        case.check(&case.bounded(100));
    }
}

#[test]
fn gradients_are_those_of_autodiff() {
    let case = Case::new([2, 2, 3, 37, 5, 8, 6]);
    let window = AttentionParameters {
        softcap: None,
        ..case.bounded(9)
    };
    for parameters in [case.plain(), window, case.bounded(9)] {
        let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| x.clone().autodiff().require_grad());
        let result = attend(q.clone(), k.clone(), v.clone(), &parameters);
        let gradients = (result * case.output.clone().autodiff()).sum().backward();
        let inputs = (case.q.clone(), case.k.clone(), case.v.clone());
        let found = attention_gradients(inputs.0, inputs.1, inputs.2, case.output.clone(), &parameters);
        for (leaf, found) in [(q, found.q), (k, found.k), (v, found.v)] {
            let expected = leaf.grad(&gradients).unwrap().without_autodiff();
            assert!(difference(found, expected) < 1e-4, "{parameters:?}");
        }
    }
}

/// A window of w tokens: the query itself and the w - 1 before it.
#[test]
fn nothing_before_the_window_is_seen() {
    let case = Case::new([1, 1, 2, 90, 0, 4, 4]);
    let window = AttentionParameters {
        window: Some(10),
        ..case.plain()
    };
    let before = attend(case.q.clone(), case.k.clone(), case.v.clone(), &window);
    let early = random([1, 1, 1, 4], 50.0);
    let v = case.v.slice_assign([0..1, 0..1, 70..71, 0..4], early);
    let after = attend(case.q, case.k, v, &window);
    let changed = |at: usize| difference(before.clone().narrow(2, at, 1), after.clone().narrow(2, at, 1));
    assert!(changed(79) > 0.0);
    assert_eq!((changed(69), changed(80)), (0.0, 0.0));
}

/// The future must not reach the past, however large its scores are.
#[test]
fn the_future_is_not_seen() {
    let case = Case::new([1, 1, 2, 90, 0, 4, 4]);
    let plain = case.plain();
    let before = attend(case.q.clone(), case.k.clone(), case.v.clone(), &plain);
    let late = random([1, 1, 10, 4], 50.0);
    let k = case.k.slice_assign([0..1, 0..1, 80..90, 0..4], late.clone());
    let v = case.v.slice_assign([0..1, 0..1, 80..90, 0..4], late);
    let after = attend(case.q, k, v, &plain);
    assert_eq!(
        difference(before.clone().narrow(2, 0, 80), after.clone().narrow(2, 0, 80)),
        0.0
    );
    assert!(difference(before, after) > 1.0);
}
