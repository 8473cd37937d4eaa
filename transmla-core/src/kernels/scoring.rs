//! How scores become probabilities.

use burn::tensor::{Bool, Device, Tensor};

/// What is done to the products of queries and keys before the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Scoring {
    /// What they are multiplied by.
    pub scale: f64,
    /// Bound c of the scores, `c · tanh(score / c)`.
    pub softcap: Option<f64>,
    /// Tokens that a query sees, itself and those before it; all if there is no number.
    pub window: Option<usize>,
}

impl Scoring {
    /// The ordinary way: divided by the square root of the width, and no bounds.
    pub fn of_width(width: usize) -> Self {
        Self {
            scale: (width as f64).powf(-0.5),
            softcap: None,
            window: None,
        }
    }

    /// Scores with scale, bound and mask, from plain products `[batch, H, new, tokens]`, the last query seeing the last key.
    pub(crate) fn masked(&self, products: Tensor<4>) -> Tensor<4> {
        let scores = self.capped(products);
        let [batch, heads, new, tokens] = scores.dims();
        match self.mask(new, tokens, &scores.device()) {
            None => scores,
            Some(mask) => scores.mask_fill(
                mask.unsqueeze::<4>().expand([batch, heads, new, tokens]),
                f32::NEG_INFINITY,
            ),
        }
    }

    /// Scores with scale and bound.
    pub(crate) fn capped(&self, products: Tensor<4>) -> Tensor<4> {
        let scores = products.mul_scalar(self.scale);
        match self.softcap {
            None => scores,
            Some(cap) => scores.div_scalar(cap).tanh().mul_scalar(cap),
        }
    }

    /// True where a query may not look, `[new, tokens]`; nothing if it may look everywhere.
    pub fn mask(&self, new: usize, tokens: usize, device: &Device) -> Option<Tensor<2, Bool>> {
        let past = tokens.saturating_sub(new);
        let future = (new > 1).then(|| Tensor::<2, Bool>::tril_mask([new, tokens], past as i64, device));
        // Query i is token past + i and sees keys from past + i + 1 - window on.
        let window = self.window.filter(|window| *window < tokens);
        let long_ago = window
            .map(|window| Tensor::<2, Bool>::tril_mask([new, tokens], past as i64 - window as i64, device).bool_not());
        match (future, long_ago) {
            (Some(future), Some(long_ago)) => Some(future.bool_or(long_ago)),
            (one, other) => one.or(other),
        }
    }
}
