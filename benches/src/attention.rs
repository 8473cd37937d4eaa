//! Causal attention of many tokens: burn's fused operation against plain ones.

use std::hint::black_box;

use burn::tensor::activation::softmax;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Tensor};

use crate::case::{Case, Timed, compare};
use crate::numbers::Numbers;

pub(crate) fn build(heads: usize, width: usize, tokens: usize) -> Box<dyn Case> {
    let mut numbers = Numbers::new(3);
    let mut tensor = || numbers.tensor([1, heads, tokens, width], 1.0);
    Box::new(Prefill {
        q: tensor(),
        k: tensor(),
        v: tensor(),
    })
}

/// Each `[1, heads, tokens, width]`.
struct Prefill {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl Prefill {
    fn plain(&self) -> Tensor<4> {
        let [_, heads, tokens, width] = self.q.dims();
        let future = Tensor::<2, Bool>::tril_mask([tokens, tokens], 0, &self.q.device());
        let future = future.unsqueeze::<4>().expand([1, heads, tokens, tokens]);
        let scores = self.q.clone().matmul(self.k.clone().swap_dims(2, 3));
        let scores = scores
            .mul_scalar((width as f64).powf(-0.5))
            .mask_fill(future, f32::NEG_INFINITY);
        softmax(scores, 3).matmul(self.v.clone())
    }

    fn fused(&self) -> Tensor<4> {
        let options = AttentionModuleOptions {
            is_causal: true,
            ..Default::default()
        };
        attention(self.q.clone(), self.k.clone(), self.v.clone(), None, None, options)
    }
}

impl Case for Prefill {
    fn check(&self) -> Result<(), String> {
        compare("fused", &self.fused(), &self.plain())
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                black_box(self.plain());
            }),
            _ => Box::new(|| {
                black_box(self.fused());
            }),
        }
    }
}
