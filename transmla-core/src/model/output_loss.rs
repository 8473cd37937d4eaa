//! The loss at the end of a model: how far its logits are from another model's and from the text, and the gradient of that.
//!
//! Logits are wide. They are made for a block of tokens at a time, become their own gradient where they lie, and go back through
//! the projection at once: softmax less target, written out, with nothing recorded.

use burn::tensor::{Tensor, TensorData};
use rayon::prelude::*;

use super::output_head::OutputHead;
use crate::error::CoreError;
use crate::host::host_values;
use crate::kernels::{RowLoss, RowTeacher, row_loss, top_of_row};

/// Numbers of logits that are held at once, of each model.
const LOGITS_AT_ONCE: usize = 16 << 20;

/// The largest probabilities of a model for each of some rows: tokens and logarithms, the largest first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopLogits {
    /// How many of each row.
    pub count: usize,
    /// `[rows, count]`, whole numbers.
    pub ids: Vec<f32>,
    /// Logarithms of probabilities, `[rows, count]`.
    pub logs: Vec<f32>,
}

/// What logits are held against beside the text.
#[derive(Debug, Clone, Copy)]
pub enum TeacherRows<'a> {
    /// Nothing.
    None,
    /// The logits of another model: its head and its residual stream behind the last layer, `[rows, hidden]`.
    Model(&'a OutputHead, &'a Tensor<2>),
    /// The largest of them; all others count as one token.
    Top(&'a TopLogits),
}

/// What each part of the loss counts, per row.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LossWeights {
    /// Of the Kullback-Leibler divergence of the logits from the teacher's.
    pub kl: f64,
    /// Of the cross-entropy to the text.
    pub cross_entropy: f64,
}

/// Sums over rows, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossSums {
    /// Of the divergence from the teacher.
    pub kl: f64,
    /// Of the cross-entropy.
    pub cross_entropy: f64,
    /// Rows.
    pub rows: usize,
    /// Rows with a token to predict.
    pub tokens: usize,
}

impl LossSums {
    /// With those of other rows.
    pub fn and(self, other: Self) -> Self {
        Self {
            kl: self.kl + other.kl,
            cross_entropy: self.cross_entropy + other.cross_entropy,
            rows: self.rows + other.rows,
            tokens: self.tokens + other.tokens,
        }
    }
}

impl OutputHead {
    /// The loss of some rows `[rows, hidden]` of the residual stream behind the last layer, and its gradient there.
    ///
    /// `next` has for each row the token that it is to predict, if there is one. The gradient is that of the weighted sum over
    /// rows; take means by the weights.
    ///
    /// # Errors
    /// [`CoreError::NonFiniteLogits`]; [`CoreError::Shape`] for a teacher of another vocabulary; [`CoreError::Execution`] if the
    /// device fails.
    pub fn loss_gradient(
        &self,
        hidden: &Tensor<2>,
        teacher: TeacherRows<'_>,
        next: &[Option<usize>],
        weights: LossWeights,
    ) -> Result<(LossSums, Tensor<2>), CoreError> {
        let mut gradients = Vec::new();
        let sums = self.rows_loss(hidden, teacher, next, weights, &mut |block, logits| {
            let at_norm = self.projection.input_gradient(logits);
            gradients.push(self.norm.input_gradient(block, at_norm));
        })?;
        Ok((sums, Tensor::cat(gradients, 0)))
    }

    /// The loss alone.
    ///
    /// # Errors
    /// As for [`Self::loss_gradient`].
    pub fn loss(
        &self,
        hidden: &Tensor<2>,
        teacher: TeacherRows<'_>,
        next: &[Option<usize>],
    ) -> Result<LossSums, CoreError> {
        let weights = LossWeights {
            kl: 1.0,
            cross_entropy: 1.0,
        };
        self.rows_loss(hidden, teacher, next, weights, &mut |_, _| {})
    }

    /// Shows each block of the residual stream with the gradient at its logits.
    fn rows_loss(
        &self,
        hidden: &Tensor<2>,
        teacher: TeacherRows<'_>,
        next: &[Option<usize>],
        weights: LossWeights,
        each: &mut dyn FnMut(Tensor<2>, Tensor<2>),
    ) -> Result<LossSums, CoreError> {
        let [rows, _] = hidden.dims();
        let mut sums = LossSums::default();
        for start in (0..rows).step_by(self.rows_at_once()) {
            let count = self.rows_at_once().min(rows - start);
            let block = hidden.clone().narrow(0, start, count);
            let of_teacher = match teacher {
                TeacherRows::Model(head, hidden) => {
                    let logits = head.logits(hidden.clone().narrow(0, start, count));
                    self.check_width(logits.dims()[1])?;
                    Some(host_values(logits)?)
                }
                _ => None,
            };
            let normed = self.norm.forward(block.clone());
            let mut logits = host_values(self.projection.forward(normed))?;
            let width = self.vocabulary();
            let top = match teacher {
                TeacherRows::Top(top) => Some(top),
                _ => None,
            };
            let row_teacher = |row: usize| match (&of_teacher, top) {
                (Some(logits), _) => RowTeacher::Logits(&logits[row * width..(row + 1) * width]),
                (None, Some(top)) => {
                    let range = (start + row) * top.count..(start + row + 1) * top.count;
                    RowTeacher::Top {
                        ids: &top.ids[range.clone()],
                        logs: &top.logs[range],
                    }
                }
                (None, None) => RowTeacher::None,
            };
            let bound = self.softcap.map(|bound| bound as f32);
            let of_row = |scratch: &mut [Vec<f32>; 2], (row, logits): (usize, &mut [f32])| {
                let next = next.get(start + row).copied().flatten();
                let weights = [weights.kl, weights.cross_entropy];
                row_loss(logits, row_teacher(row), next, weights, bound, scratch)
            };
            let losses: Vec<RowLoss> = logits
                .par_chunks_exact_mut(width)
                .enumerate()
                .map_init(|| [Vec::new(), Vec::new()], of_row)
                .collect();
            for loss in losses {
                sums.kl += loss.kl;
                sums.cross_entropy += loss.cross_entropy;
            }
            let logits = Tensor::<2>::from_data(TensorData::new(logits, [count, width]), &hidden.device());
            each(block, logits);
        }
        if !(sums.kl.is_finite() && sums.cross_entropy.is_finite()) {
            return Err(CoreError::NonFiniteLogits);
        }
        sums.rows = rows;
        sums.tokens = next.iter().flatten().count();
        Ok(sums)
    }

    /// The largest probabilities that follow from some rows `[rows, hidden]` of the residual stream behind the last layer.
    ///
    /// # Errors
    /// [`CoreError::NonFiniteLogits`]; [`CoreError::Execution`] if the device fails.
    pub fn top_logits(&self, hidden: &Tensor<2>, count: usize) -> Result<TopLogits, CoreError> {
        let ([rows, _], width) = (hidden.dims(), self.vocabulary());
        let count = count.min(width);
        let mut top = TopLogits {
            count,
            ..TopLogits::default()
        };
        for start in (0..rows).step_by(self.rows_at_once()) {
            let block = hidden.clone().narrow(0, start, self.rows_at_once().min(rows - start));
            let mut logits = host_values(self.projection.forward(self.norm.forward(block)))?;
            let bound = self.softcap.map(|bound| bound as f32);
            let found: Vec<_> = logits
                .par_chunks_exact_mut(width)
                .map(|row| top_of_row(row, count, bound))
                .collect();
            for (ids, logs) in found {
                top.ids.extend(ids);
                top.logs.extend(logs);
            }
        }
        match top.logs.iter().all(|log| log.is_finite()) {
            true => Ok(top),
            false => Err(CoreError::NonFiniteLogits),
        }
    }

    fn vocabulary(&self) -> usize {
        self.projection.weight.dims()[0]
    }

    fn rows_at_once(&self) -> usize {
        (LOGITS_AT_ONCE / self.vocabulary().max(1)).max(1)
    }

    fn check_width(&self, found: usize) -> Result<(), CoreError> {
        match found == self.vocabulary() {
            true => Ok(()),
            false => Err(CoreError::Shape {
                name: "logits of the other model".into(),
                expected: vec![self.vocabulary()],
                found: vec![found],
            }),
        }
    }
}
