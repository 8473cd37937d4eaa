//! What is measured by position in a window.

use std::ops::Range;

use crate::standard_error::standard_error;

/// Positions of the first range.
const FIRST: usize = 128;

/// The ranges that a window's positions are divided into: 0 to 127, then each as long as all before it, 128 to 255, 256 to 511
/// and so on; the last ends with the window.
pub fn position_ranges(sequence: usize) -> Vec<Range<usize>> {
    let ends = std::iter::successors(Some(FIRST), |end| end.checked_mul(2));
    let mut ranges = Vec::new();
    let mut start = 0;
    for end in ends {
        if start >= sequence {
            break;
        }
        ranges.push(start..end.min(sequence));
        start = end;
    }
    ranges
}

/// The perplexity of predictions at some positions of windows.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionPerplexity {
    /// Positions of the tokens behind which predictions are made; at position t a model sees t + 1 tokens.
    pub positions: Range<usize>,
    /// exp of `mean_nll`.
    pub perplexity: f64,
    /// Mean over windows of the mean negative log-likelihood at these positions, in nats per token.
    pub mean_nll: f64,
    /// Standard error of `mean_nll`, from the spread of the windows; nothing for a single window.
    pub standard_error: Option<f64>,
    /// Number of predicted tokens.
    pub predictions: usize,
}

/// How far the predictions of two models at some positions of windows are apart.
#[derive(Debug, Clone, PartialEq)]
pub struct PositionDivergence {
    /// Positions of the tokens behind which predictions are made.
    pub positions: Range<usize>,
    /// Kullback-Leibler divergence KL(first ‖ second), in nats per token.
    pub kl: f64,
    /// Share of positions at which both models find the same token most likely, 0 to 1.
    pub top1_agreement: f64,
    /// Number of predictions compared.
    pub predictions: usize,
}

/// Mean negative log-likelihoods by range, window after window.
pub(crate) struct WindowMeans {
    ranges: Vec<Range<usize>>,
    /// By range and window.
    means: Vec<Vec<f64>>,
}

impl WindowMeans {
    /// Of no windows yet, of so many tokens each.
    pub fn new(sequence: usize) -> Self {
        let mut ranges = position_ranges(sequence);
        // Behind the last token nothing is predicted.
        ranges.retain(|range| range.start + 1 < sequence);
        Self {
            means: vec![Vec::new(); ranges.len()],
            ranges,
        }
    }

    /// Adds a window, the negative log-likelihood at each of its positions but the last.
    pub fn add(&mut self, nll: &[f64]) {
        for (range, means) in self.ranges.iter().zip(&mut self.means) {
            let part = &nll[range.start..range.end.min(nll.len())];
            means.push(part.iter().sum::<f64>() / part.len() as f64);
        }
    }

    pub fn perplexities(self, sequence: usize) -> Vec<PositionPerplexity> {
        let of = |(range, means): (Range<usize>, Vec<f64>)| {
            let mean_nll = means.iter().sum::<f64>() / means.len() as f64;
            PositionPerplexity {
                perplexity: mean_nll.exp(),
                mean_nll,
                standard_error: standard_error(&means, mean_nll),
                predictions: means.len() * (range.end.min(sequence - 1) - range.start),
                positions: range,
            }
        };
        self.ranges.into_iter().zip(self.means).map(of).collect()
    }
}

/// Sums of what two models' predictions differ by, by range.
pub(crate) struct DivergenceSums {
    sequence: usize,
    ranges: Vec<Range<usize>>,
    /// By range: divergence, agreements and predictions.
    sums: Vec<(f64, f64, usize)>,
}

impl DivergenceSums {
    /// Of no windows yet, of so many tokens each.
    pub fn new(sequence: usize) -> Self {
        let ranges = position_ranges(sequence);
        Self {
            sequence,
            sums: vec![(0.0, 0.0, 0); ranges.len()],
            ranges,
        }
    }

    /// Adds rows of windows that follow each other, beginning with row `first` of the first window: the divergence of each
    /// and 1 where the most likely token is the same.
    pub fn add(&mut self, first: usize, kl: &[f32], same: &[f32]) {
        for (index, (kl, same)) in kl.iter().zip(same).enumerate() {
            let position = (first + index) % self.sequence;
            if let Some(range) = self.ranges.iter().position(|range| range.contains(&position)) {
                let sum = &mut self.sums[range];
                sum.0 += f64::from(*kl);
                sum.1 += f64::from(*same);
                sum.2 += 1;
            }
        }
    }

    /// All ranges together: divergence, agreements and predictions.
    pub fn total(&self) -> (f64, f64, usize) {
        let add = |sum: (f64, f64, usize), part: &(f64, f64, usize)| (sum.0 + part.0, sum.1 + part.1, sum.2 + part.2);
        self.sums.iter().fold((0.0, 0.0, 0), add)
    }

    pub fn divergences(self) -> Vec<PositionDivergence> {
        let of = |(positions, (kl, agreed, count)): (Range<usize>, (f64, f64, usize))| PositionDivergence {
            positions,
            kl: kl / count as f64,
            top1_agreement: agreed / count as f64,
            predictions: count,
        };
        self.ranges.into_iter().zip(self.sums).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_double_and_end_with_the_window() {
        assert!(position_ranges(0).is_empty());
        assert_eq!(position_ranges(100).as_slice(), std::slice::from_ref(&(0..100)));
        assert_eq!(position_ranges(128).as_slice(), std::slice::from_ref(&(0..128)));
        assert_eq!(position_ranges(600), [0..128, 128..256, 256..512, 512..600]);
        let long = position_ranges(8192);
        assert_eq!((long.len(), long.last()), (7, Some(&(4096..8192))));
    }

    #[test]
    fn a_last_position_alone_predicts_nothing() {
        let mut means = WindowMeans::new(129);
        means.add(&[2.0; 128]);
        let found = means.perplexities(129);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].predictions, found[0].mean_nll), (128, 2.0));
    }
}
