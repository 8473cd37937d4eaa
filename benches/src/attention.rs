//! Causal attention of many tokens: burn's operation and the fused kernel against plain ones.

use std::hint::black_box;

use burn::tensor::Tensor;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use transmla_core::kernels::{causal_attention, plain_attention};

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
        plain_attention(self.q.clone(), self.k.clone(), self.v.clone())
    }

    fn fused(&self) -> Tensor<4> {
        causal_attention(self.q.clone(), self.k.clone(), self.v.clone())
    }

    fn burn(&self) -> Tensor<4> {
        let options = AttentionModuleOptions {
            is_causal: true,
            ..Default::default()
        };
        attention(self.q.clone(), self.k.clone(), self.v.clone(), None, None, options)
    }
}

impl Case for Prefill {
    fn check(&self) -> Result<(), String> {
        compare("burn", &self.burn(), &self.plain())?;
        compare("fused", &self.fused(), &self.plain())
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                black_box(self.plain());
            }),
            1 => Box::new(|| {
                black_box(self.burn());
            }),
            _ => Box::new(|| {
                black_box(self.fused());
            }),
        }
    }
}
