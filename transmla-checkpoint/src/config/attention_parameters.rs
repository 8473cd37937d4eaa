//! How attention scores become probabilities: scale, soft-cap and window.

/// Scale, soft-cap and window of attention scores.
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
}
