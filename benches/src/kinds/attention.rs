//! Causal attention of many tokens: burn's operation and the fused kernel against plain ones.

use std::hint::black_box;

use burn::tensor::Tensor;
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use transmla_core::kernels::{AttentionParameters, attend, attention_mask, plain_attend};

use crate::case::{Case, Timed, compare};
use crate::numbers::Numbers;

/// Bound of the scores of Gemma 2.
const SOFT_CAP: f64 = 50.0;

pub(crate) fn build(heads: usize, width: usize, tokens: usize, window: Option<usize>) -> Box<dyn Case> {
    let mut numbers = Numbers::new(3);
    let mut tensor = || numbers.tensor([1, heads, tokens, width], 1.0);
    Box::new(Prefill {
        q: tensor(),
        k: tensor(),
        v: tensor(),
        parameters: AttentionParameters {
            softcap: window.map(|_| SOFT_CAP),
            window,
            ..AttentionParameters::of_width(width)
        },
    })
}

/// Each `[1, heads, tokens, width]`.
struct Prefill {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    parameters: AttentionParameters,
}

impl Prefill {
    fn plain(&self) -> Tensor<4> {
        plain_attend(self.q.clone(), self.k.clone(), self.v.clone(), &self.parameters)
    }

    fn fused(&self) -> Tensor<4> {
        attend(self.q.clone(), self.k.clone(), self.v.clone(), &self.parameters)
    }

    fn burn(&self) -> Tensor<4> {
        let tokens = self.q.dims()[2];
        let options = AttentionModuleOptions {
            is_causal: self.parameters.window.is_none(),
            softcap: self.parameters.softcap,
            ..Default::default()
        };
        let window = self
            .parameters
            .window
            .and_then(|_| attention_mask(&self.parameters, tokens, tokens, &self.q.device()));
        let mask = window.map(|mask| mask.unsqueeze::<4>().expand([1, self.q.dims()[1], tokens, tokens]));
        attention(self.q.clone(), self.k.clone(), self.v.clone(), mask, None, options)
    }
}

impl Case for Prefill {
    fn check(&self) -> anyhow::Result<()> {
        compare("burn", &self.burn(), &self.plain(), 1e-4)?;
        compare("fused", &self.fused(), &self.plain(), 1e-4)
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
