//! How frequencies are grouped for the shared rotary key.

use crate::error::RopeError;
use crate::shape::HeadShape;

/// A validated folding of frequencies: the rotary key's width and how many adjacent frequencies share a rotation.
///
/// With `d` the head width, `d_r` the rope dimension and `J = d/2` frequencies per head, the collapse is `c = d/d_r`
/// and the freqfold `F` is a multiple of `c` that divides `J`. The `J/F` groups of adjacent frequencies each give the
/// rotary key `F/c` of its `d_r/2` slots.
///
/// Source: TransMLA, arXiv 2502.07864, FreqFold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoldSpec {
    head_dim: usize,
    rope_dim: usize,
    freqfold: usize,
}

impl FoldSpec {
    /// A folding for heads of `shape` with a rotary key of `rope_dim` dimensions and `freqfold` frequencies a group.
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

    /// The freqfolds worth trying for a rope dimension: the collapse, then doubling while it divides the frequencies.
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

    /// Adjacent frequencies that share one rotation, `F`.
    pub fn freqfold(&self) -> usize {
        self.freqfold
    }

    /// Head width over rope dimension, `c = d/d_r`: how many original frequencies there are per slot.
    pub fn collapse(&self) -> usize {
        self.head_dim / self.rope_dim
    }

    /// Complex slots of the rotary key, `d_r/2`.
    pub fn slots(&self) -> usize {
        self.rope_dim / 2
    }

    /// Width of the heads that this folding was made for, `d`.
    pub fn head_dim(&self) -> usize {
        self.head_dim
    }

    /// Groups of adjacent frequencies, `J/F`.
    pub fn groups(&self) -> usize {
        self.head_dim / 2 / self.freqfold
    }

    /// Slots that each group fills, `F/c`.
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
