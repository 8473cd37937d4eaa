//! A tensor as a file has it, and its numbers.

use std::ops::Range;

use super::shard::Shard;
use super::tensor_dtype::{Numbers, TensorDtype};
use crate::error::CheckpointError;

/// Up to so many numbers are read for each that is wanted, rather than one by one.
const SPREAD: usize = 4;

/// Where a tensor is, its number format, and how its bytes become rows.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    /// Which file.
    pub shard: usize,
    pub dtype: TensorDtype,
    pub shape: Vec<usize>,
    /// Byte range in the file.
    pub bytes: Range<u64>,
    pub arrangement: Arrangement,
}

/// How the stored numbers become those of the tensor.
#[derive(Debug, Clone)]
pub(crate) enum Arrangement {
    /// Row after row.
    Plain,
    /// Rows of so many heads, each with the two parts of a rotary pair side by side; the tensor has them half a head apart.
    InterleavedRows {
        /// Number of heads.
        heads: usize,
    },
    /// Each number is one more than the tensor's.
    OneMore,
    /// So many numbers apart in each dimension.
    Strided {
        /// One for each dimension.
        strides: Vec<usize>,
    },
    /// Numbers of 8 bits of a matrix, to be multiplied by a number for each block.
    Scaled {
        /// A matrix with a number for each block.
        scales: Box<Stored>,
        /// Rows and columns of a block.
        block: [usize; 2],
    },
}

impl Stored {
    /// How the numbers are decoded.
    ///
    /// # Errors
    /// They cannot be.
    pub(super) fn numbers(&self, name: &str) -> Result<Numbers, CheckpointError> {
        match self.arrangement {
            Arrangement::Scaled { .. } => Ok(Numbers::EightBits),
            _ => self.dtype.numbers(name),
        }
    }

    /// The numbers that its own are multiplied by, if they are stored apart.
    pub fn scales(&self) -> Option<&Self> {
        match &self.arrangement {
            Arrangement::Scaled { scales, .. } => Some(scales),
            _ => None,
        }
    }

    /// How far apart its numbers are in each dimension, if not row after row.
    pub fn strides(&self) -> Option<&[usize]> {
        match &self.arrangement {
            Arrangement::Strided { strides } => Some(strides),
            _ => None,
        }
    }

    /// Number of numbers.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Decodes numbers of the tensor onto the end of `out`.
    ///
    /// # Errors
    /// The format cannot be decoded, or the file cannot be read.
    pub fn decode(
        &self,
        name: &str,
        shards: &[Shard],
        elements: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), CheckpointError> {
        match &self.arrangement {
            Arrangement::Plain => self.decode_run(name, shards, elements, out),
            Arrangement::OneMore => {
                let first = out.len();
                self.decode_run(name, shards, elements, out)?;
                out[first..].iter_mut().for_each(|value| *value -= 1.0);
                Ok(())
            }
            Arrangement::InterleavedRows { heads } => {
                let rows = self.shape.first().copied().unwrap_or_default().max(1);
                let (width, head) = ((self.elements() / rows).max(1), (rows / (*heads).max(1)).max(2));
                let mut at = elements.start;
                while at < elements.end {
                    let (row, column) = (at / width, at % width);
                    let length = (width - column).min(elements.end - at);
                    let start = interleaved(row, head) * width + column;
                    self.decode_run(name, shards, start..start + length, out)?;
                    at += length;
                }
                Ok(())
            }
            Arrangement::Strided { strides } => {
                let unit = self.numbers(name)?.block_bytes() as u64;
                let span = ((self.bytes.end - self.bytes.start) / unit) as usize;
                let place = |mut element: usize| {
                    let sizes = self.shape.iter().zip(strides).rev();
                    sizes.fold(0, |place, (size, stride)| {
                        let index = element % size;
                        element /= size;
                        place + index * stride
                    })
                };
                // A matrix that lies on its side is read as it lies; numbers that are far apart are read one by one.
                if span / SPREAD <= self.elements() {
                    let mut all = Vec::new();
                    self.decode_run(name, shards, 0..span, &mut all)?;
                    out.extend(elements.map(|element| all[place(element)]));
                    return Ok(());
                }
                elements.into_iter().try_for_each(|element| {
                    let at = place(element);
                    self.decode_run(name, shards, at..at + 1, out)
                })
            }
            Arrangement::Scaled {
                scales,
                block: [high, wide],
            } => {
                let (first, width) = (out.len(), self.shape.last().copied().unwrap_or_default().max(1));
                self.decode_run(name, shards, elements.clone(), out)?;
                let (above, per_row) = (elements.start / width / high, width.div_ceil(*wide));
                let below = elements.end.div_ceil(width).div_ceil(*high);
                let mut factors = Vec::new();
                scales.decode(name, shards, above * per_row..below * per_row, &mut factors)?;
                let mut at = elements.start;
                while at < elements.end {
                    let (row, column) = (at / width, at % width);
                    let end = ((column / wide + 1) * wide).min(width) - column;
                    let length = end.min(elements.end - at);
                    let factor = factors[(row / high - above) * per_row + column / wide];
                    let from = first + at - elements.start;
                    out[from..from + length].iter_mut().for_each(|value| *value *= factor);
                    at += length;
                }
                Ok(())
            }
        }
    }

    /// Decodes stored numbers that follow each other.
    fn decode_run(
        &self,
        name: &str,
        shards: &[Shard],
        elements: Range<usize>,
        out: &mut Vec<f32>,
    ) -> Result<(), CheckpointError> {
        let numbers = self.numbers(name)?;
        let (block, bytes) = (numbers.block(), numbers.block_bytes());
        // Whole blocks are read, and what is around the wanted numbers is dropped.
        let (first, last) = (elements.start / block, elements.end.div_ceil(block));
        let at = |index: usize| self.bytes.start + (index * bytes) as u64;
        let kept = out.len();
        shards[self.shard].read(at(first)..at(last), bytes, &mut |piece| {
            numbers.decode_onto(piece, out);
            Ok(())
        })?;
        out.drain(kept..kept + elements.start - first * block);
        out.truncate(kept + elements.len());
        Ok(())
    }
}

/// The row that has, side by side with the other part of its pair, what is half a head apart from it at `row`.
fn interleaved(row: usize, head: usize) -> usize {
    let (first, within) = (row / head * head, row % head);
    let half = head / 2;
    match within < half {
        true => first + 2 * within,
        false => first + 2 * (within - half) + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_that_stand_side_by_side_are_half_a_head_apart() {
        let rows: Vec<usize> = (0..12).map(|row| interleaved(row, 6)).collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
    }
}
