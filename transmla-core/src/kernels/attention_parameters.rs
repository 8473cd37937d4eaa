//! How attention scores become probabilities: scale, soft-cap and window.

use burn::tensor::{Bool, Device, Tensor};

/// How attention scores become probabilities: what is done to the products of queries and keys before the softmax.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionParameters {
    /// Factor of the scores.
    pub scale: f64,
    /// Soft-cap c of the scores: `c · tanh(score / c)`.
    pub softcap: Option<f64>,
    /// Number of tokens that a query sees, itself included; all of them if `None`.
    pub window: Option<usize>,
}

impl AttentionParameters {
    /// The scale `1 / sqrt(width)`, without soft-cap and window.
    pub fn of_width(width: usize) -> Self {
        Self {
            scale: (width as f64).powf(-0.5),
            softcap: None,
            window: None,
        }
    }

    /// Scores with scale, soft-cap and mask, from plain products `[batch, H, new, tokens]`, the last query seeing the last key.
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

    /// Scores with scale and soft-cap.
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
