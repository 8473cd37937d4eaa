//! The fused attention of the CPU against plain tensor operations, and its gradient against burn's autodiff.

use burn::tensor::{Device, Distribution, Tensor};
use proptest::prelude::*;
use transmla_core::kernels::{attention_gradients, causal_attention, plain_attention, plain_attention_gradients};

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

    fn check(&self) {
        let (q, k, v) = (self.q.clone(), self.k.clone(), self.v.clone());
        let fused = causal_attention(q.clone(), k.clone(), v.clone());
        assert!(difference(fused, plain_attention(q.clone(), k.clone(), v.clone())) < 1e-5);
        let fused = attention_gradients(q.clone(), k.clone(), v.clone(), self.output.clone());
        let plain = plain_attention_gradients(q, k, v, self.output.clone());
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
        width in 1usize..20, value_width in 1usize..20,
    ) {
        Case::new([batch, groups, shared, new, past, width, value_width]).check();
    }
}

/// Real dimensions: SmolLM2's heads over more than one block, and decoding one token.
#[test]
fn fused_equals_plain_at_real_shapes() {
    Case::new([1, 3, 3, 256, 0, 64, 64]).check();
    Case::new([2, 9, 1, 70, 129, 96, 64]).check();
    Case::new([1, 8, 4, 1, 511, 128, 128]).check();
}

#[test]
fn gradients_are_those_of_autodiff() {
    let case = Case::new([2, 2, 3, 37, 5, 8, 6]);
    let [q, k, v] = [&case.q, &case.k, &case.v].map(|x| x.clone().autodiff().require_grad());
    let result = causal_attention(q.clone(), k.clone(), v.clone());
    let gradients = (result * case.output.clone().autodiff()).sum().backward();
    let found = attention_gradients(case.q, case.k, case.v, case.output);
    for (leaf, found) in [(q, found.q), (k, found.k), (v, found.v)] {
        let expected = leaf.grad(&gradients).unwrap().without_autodiff();
        assert!(difference(found, expected) < 1e-4);
    }
}

/// The future must not reach the past, however large its scores are.
#[test]
fn the_future_is_not_seen() {
    let case = Case::new([1, 1, 2, 90, 0, 4, 4]);
    let before = causal_attention(case.q.clone(), case.k.clone(), case.v.clone());
    let late = random([1, 1, 10, 4], 50.0);
    let k = case.k.slice_assign([0..1, 0..1, 80..90, 0..4], late.clone());
    let v = case.v.slice_assign([0..1, 0..1, 80..90, 0..4], late);
    let after = causal_attention(case.q, k, v);
    assert_eq!(
        difference(before.clone().narrow(2, 0, 80), after.clone().narrow(2, 0, 80)),
        0.0
    );
    assert!(difference(before, after) > 1.0);
}
