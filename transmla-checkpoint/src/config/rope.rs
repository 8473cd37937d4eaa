//! Rotary position embeddings: frequencies, scaling and pair layout.

use std::ops::Range;

use super::scaling::RopeScaling;

/// How the dimensions of a head form complex pairs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RopeLayout {
    /// Pair j is (j, j + d/2): Llama, Mistral and Qwen in Hugging Face checkpoints.
    HalfSplit,
    /// Pair j is (2j, 2j + 1): DeepSeek.
    Interleaved,
}

/// Rotary position embedding of a model (RoFormer, arXiv 2104.09864, equation 15).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Number d of rotated dimensions of a head.
    pub dim: usize,
    /// Pair layout in the checkpoint.
    pub layout: RopeLayout,
    /// What is done to the frequencies for long contexts.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Frequencies in radians per token, j = 0 … d/2 - 1: `theta^(-2j/d)`, scaled.
    pub fn frequencies(&self) -> Vec<f64> {
        let plain = (0..self.dim / 2).map(|j| self.theta.powf(-2.0 * j as f64 / self.dim as f64));
        self.scaling.apply(plain.collect(), self.theta)
    }

    /// What rotated queries and keys are multiplied by: 1 but for YaRN.
    pub fn attention_factor(&self) -> f64 {
        self.scaling.attention_factor()
    }

    /// Cosines and sines for a range of positions, each row-major `[positions, d/2]`, times the attention factor.
    ///
    /// Frequencies and angles are rounded to `f32` first, as the reference implementations do.
    pub fn angles(&self, positions: Range<usize>) -> (Vec<f32>, Vec<f32>) {
        let frequencies: Vec<f32> = self.frequencies().iter().map(|f| *f as f32).collect();
        let factor = self.attention_factor() as f32;
        positions
            .flat_map(|p| frequencies.iter().map(move |f| p as f32 * f))
            .map(|angle| (angle.cos() * factor, angle.sin() * factor))
            .unzip()
    }
}
