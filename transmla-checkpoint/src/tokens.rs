//! Batches of token ids, checked.

use std::ops::Range;

use crate::error::CheckpointError;

/// Token ids of shape `[batch, sequence]`, every sequence of the same length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenBatch {
    ids: Vec<i64>,
    batch: usize,
    sequence: usize,
}

impl TokenBatch {
    /// A batch of row-major ids.
    ///
    /// # Errors
    /// [`CheckpointError::TokenBatch`] if there is nothing in it, the length is not `batch * sequence`, or an id is negative.
    pub fn from_ids(ids: Vec<i64>, batch: usize, sequence: usize) -> Result<Self, CheckpointError> {
        let problem = if batch == 0 || sequence == 0 {
            format!("input_ids [{batch}, {sequence}] hold no token")
        } else if batch.checked_mul(sequence) != Some(ids.len()) {
            let found = ids.len();
            format!("input_ids [{batch}, {sequence}] need as many ids, there are {found}")
        } else if let Some(id) = ids.iter().find(|id| **id < 0) {
            format!("input_ids hold the negative id {id}")
        } else {
            return Ok(Self { ids, batch, sequence });
        };
        Err(CheckpointError::TokenBatch { problem })
    }

    /// Number of sequences.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// Tokens in each sequence.
    pub fn sequence(&self) -> usize {
        self.sequence
    }

    /// Tokens in all sequences together.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// All ids, row-major.
    pub fn ids(&self) -> &[i64] {
        &self.ids
    }

    /// The ids of one sequence.
    pub fn row(&self, index: usize) -> &[i64] {
        &self.ids[index * self.sequence..(index + 1) * self.sequence]
    }

    /// Some of the sequences; the range is clamped to the batch. `None` if it is empty.
    pub fn rows(&self, range: Range<usize>) -> Option<Self> {
        let range = range.start..range.end.min(self.batch);
        if range.is_empty() {
            return None;
        }
        Some(Self {
            ids: self.ids[range.start * self.sequence..range.end * self.sequence].to_vec(),
            batch: range.len(),
            sequence: self.sequence,
        })
    }

    /// Checks that every id is in a vocabulary.
    ///
    /// # Errors
    /// [`CheckpointError::TokenOutOfRange`] with the first id that is not.
    pub fn check_vocabulary(&self, vocab_size: usize) -> Result<(), CheckpointError> {
        match self.ids.iter().find(|id| **id >= vocab_size as i64) {
            Some(&id) => Err(CheckpointError::TokenOutOfRange { id, vocab_size }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_what_is_not_a_batch() {
        assert!(TokenBatch::from_ids(vec![], 0, 4).is_err());
        assert!(TokenBatch::from_ids(vec![1, 2, 3], 2, 2).is_err());
        assert!(TokenBatch::from_ids(vec![1, -2], 1, 2).is_err());
        let batch = TokenBatch::from_ids((0..6).collect(), 3, 2).unwrap();
        assert_eq!(batch.rows(1..9).unwrap().ids(), &[2, 3, 4, 5]);
        assert!(batch.rows(3..4).is_none());
        assert!(batch.check_vocabulary(5).is_err() && batch.check_vocabulary(6).is_ok());
    }
}
