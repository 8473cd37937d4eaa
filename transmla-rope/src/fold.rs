//! Grouping of frequencies (FreqFold) for the shared rotary key.

use crate::error::RopeError;
use crate::shape::HeadShape;

/// A valid folding of frequencies: the width of the rotary key and the number of adjacent frequencies that share a rotation.
///
/// With head width `d`, rope dimension `d_r` and `J = d/2` frequencies per head, the collapse is `c = d/d_r`, and the
/// freqfold `F` is a multiple of `c` that divides `J`. Each of the `J/F` groups of adjacent frequencies fills `F/c` of the
/// `d_r/2` slots of the rotary key.
///
/// Source: TransMLA, arXiv 2502.07864, FreqFold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldSpec {
    head_dim: usize,
    rope_dim: usize,
    freqfold: usize,
}

impl FoldSpec {
    /// Makes a folding for heads of `shape`, with a rotary key of `rope_dim` dimensions and `freqfold` frequencies per group.
    ///
    /// # Errors
    ///
    /// An invalid `shape` as in [`HeadShape::new`]; [`RopeError::RopeDim`] unless `rope_dim` is even and divides the
    /// head width; [`RopeError::FreqFold`] unless `freqfold` is a multiple of the collapse and divides the number of
    /// frequencies. Both list the valid values.
    pub fn new(shape: HeadShape, rope_dim: usize, freqfold: usize) -> Result<Self, RopeError> {
        let collapse = collapse(shape, rope_dim)?;
        let pairs = shape.pairs();
        let fits = |f: usize| f > 0 && f.is_multiple_of(collapse) && pairs.is_multiple_of(f);
        if !fits(freqfold) {
            let valid = (1..=pairs).filter(|&f| fits(f)).collect();
            return Err(RopeError::FreqFold {
                collapse,
                pairs,
                found: freqfold,
                valid,
            });
        }
        Ok(Self {
            head_dim: shape.head_dim,
            rope_dim,
            freqfold,
        })
    }

    /// Freqfolds to try for a rope dimension: the collapse, doubled as long as it divides the number of frequencies.
    ///
    /// # Errors
    ///
    /// As [`FoldSpec::new`] for `shape` and `rope_dim`.
    pub fn candidates(shape: HeadShape, rope_dim: usize) -> Result<Vec<usize>, RopeError> {
        let collapse = collapse(shape, rope_dim)?;
        let pairs = shape.pairs();
        Ok(std::iter::successors(Some(collapse), |f| f.checked_mul(2))
            .take_while(|&f| pairs.is_multiple_of(f) && f <= pairs)
            .collect())
    }

    /// Width of the shared rotary key, `d_r`.
    pub fn rope_dim(&self) -> usize {
        self.rope_dim
    }

    /// Number of adjacent frequencies that share a rotation, `F`.
    pub fn freqfold(&self) -> usize {
        self.freqfold
    }

    /// Number of original frequencies per slot, `c = d/d_r`.
    pub fn collapse(&self) -> usize {
        self.head_dim / self.rope_dim
    }

    /// Number of complex slots of the rotary key, `d_r/2`.
    pub fn slots(&self) -> usize {
        self.rope_dim / 2
    }

    /// Width of the heads, `d`.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Number of groups of adjacent frequencies, `J/F`.
    pub fn groups(&self) -> usize {
        self.head_dim / 2 / self.freqfold
    }

    /// Number of slots that each group fills, `F/c`.
    pub fn slots_per_group(&self) -> usize {
        self.freqfold / self.collapse()
    }
}

fn collapse(shape: HeadShape, rope_dim: usize) -> Result<usize, RopeError> {
    shape.check()?;
    let head_dim = shape.head_dim;
    let fits = |r: usize| r > 0 && r.is_multiple_of(2) && head_dim.is_multiple_of(r);
    if !fits(rope_dim) {
        let valid = (1..=head_dim).filter(|&r| fits(r)).collect();
        return Err(RopeError::RopeDim {
            head_dim,
            found: rope_dim,
            valid,
        });
    }
    Ok(head_dim / rope_dim)
}
