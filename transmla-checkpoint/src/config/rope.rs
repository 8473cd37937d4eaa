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

impl RopeLayout {
    /// Where dimension `j` of `dim` half-split ones lies in this layout.
    pub fn index_of_half_split(self, j: usize, dim: usize) -> usize {
        match self {
            Self::HalfSplit => j,
            Self::Interleaved if j < dim / 2 => 2 * j,
            Self::Interleaved => 2 * (j - dim / 2) + 1,
        }
    }

    /// Where dimension `j` of `dim` in this layout lies among half-split ones.
    pub fn half_split_index(self, j: usize, dim: usize) -> usize {
        match self {
            Self::HalfSplit => j,
            Self::Interleaved => j / 2 + j % 2 * (dim / 2),
        }
    }
}

/// Rotary position embedding of a model (RoFormer, arXiv 2104.09864, equation 15).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RopeConfig {
    /// Base of the frequencies.
    pub theta: f64,
    /// Number d of dimensions of a head that are made of pairs.
    pub dim: usize,
    /// How many of them turn, the first pairs; the others keep still. 0 in a layer without positions.
    pub rotated: usize,
    /// Pair layout in the checkpoint.
    pub layout: RopeLayout,
    /// What is done to the frequencies for long contexts.
    pub scaling: RopeScaling,
}

impl RopeConfig {
    /// Frequencies in radians per token, j = 0 … d/2 - 1: `theta^(-2j/n)`, scaled, n being the number of dimensions that turn; 0
    /// for the others.
    pub fn frequencies(&self) -> Vec<f64> {
        let plain = (0..self.rotated / 2).map(|j| self.theta.powf(-2.0 * j as f64 / self.rotated as f64));
        let mut frequencies = match self.has_positions() {
            true => self.scaling.apply(plain.collect(), self.theta),
            false => Vec::new(),
        };
        frequencies.resize(self.dim / 2, 0.0);
        frequencies
    }

    /// Whether anything turns.
    pub fn has_positions(&self) -> bool {
        self.rotated > 0
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interleaving_alternates_real_and_imaginary_parts() {
        let order = |layout: RopeLayout| [0, 1, 2, 3, 4, 5].map(|j| layout.half_split_index(j, 6));
        assert_eq!(order(RopeLayout::Interleaved), [0, 3, 1, 4, 2, 5]);
        assert_eq!(order(RopeLayout::HalfSplit), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn interleaving_is_undone() {
        for layout in [RopeLayout::HalfSplit, RopeLayout::Interleaved] {
            for (half, j) in (1..40).flat_map(|half| (0..2 * half).map(move |j| (half, j))) {
                let dim = 2 * half;
                assert_eq!(layout.index_of_half_split(layout.half_split_index(j, dim), dim), j);
                assert_eq!(layout.half_split_index(layout.index_of_half_split(j, dim), dim), j);
            }
        }
    }

    #[test]
    fn what_does_not_turn_has_no_frequency() {
        let rope = |rotated| RopeConfig {
            theta: 10_000.0,
            dim: 8,
            rotated,
            layout: RopeLayout::HalfSplit,
            scaling: RopeScaling::Default,
        };
        assert_eq!(rope(0).frequencies(), [0.0; 4]);
        assert_eq!(rope(4).frequencies(), [1.0, 0.01, 0.0, 0.0]);
        assert_eq!(rope(8).frequencies(), [1.0, 0.1, 0.01, 0.001]);
        assert_eq!(rope(0).angles(5..6), (vec![1.0; 4], vec![0.0; 4]));
    }

    /// The slots of a narrow rotary key turn at every `c`-th frequency of the heads.
    #[test]
    fn a_narrower_rotation_turns_at_every_collapsed_frequency() {
        let frequencies = |dim| {
            RopeConfig {
                theta: 10_000.0,
                dim,
                rotated: dim,
                layout: RopeLayout::HalfSplit,
                scaling: RopeScaling::Default,
            }
            .frequencies()
        };
        let (original, slots) = (frequencies(64), frequencies(16));
        assert_eq!((original.len(), slots.len()), (32, 8));
        for (m, slot) in slots.iter().enumerate() {
            assert!((slot / original[4 * m] - 1.0).abs() < 1e-14);
        }
    }
}
