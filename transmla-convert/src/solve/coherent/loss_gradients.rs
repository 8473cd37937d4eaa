//! The calibration text as the coherent method divides it, and the loss's gradients on part of it.

use burn::tensor::Tensor;
use half::bf16;
use transmla_core::{Decoder, LayeredModel, TokenBatch};

use crate::solve::coherent::example::Example;
use crate::solve::coherent::gradient_pass::{kept_gradients, take_gradients};
use crate::solve::kept::{Basis, Kept, StatisticsStore};
use crate::solve::memory::batch_sequences;
use crate::solve::method::Job;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::report::Observer;
use crate::text::corpus::RUN;

/// Tokens that the sensitivity statistics are taken from.
const STATISTICS: usize = 4096;

/// One in this many batches is held out.
const HOLDOUT: usize = 8;

/// Held-out tokens that candidates are compared on.
const CHOICE: usize = 2048;

/// Most bytes of what is kept of a layer while gradients are taken, and of what is left of it afterwards, for each of the model's
/// dimensions: the residual stream, and gradients in half the bytes.
pub(crate) fn kept_bytes(text: &Division) -> [u64; 2] {
    [size_of::<f32>(), size_of::<bf16>()].map(|number| (text.with_gradients * number) as u64)
}

/// The calibration text as this method reads it, and the loss's gradients on part of it: what does not depend on the
/// shapes of the converted model.
pub(crate) struct LossGradients {
    /// The text, in longer sequences.
    pub text: TokenBatch,
    /// Sequences that go through a layer together.
    pub batch_size: usize,
    /// Which batches serve what.
    pub split: Split,
    cal_batch_size: usize,
    /// The text as it was given.
    calibration: TokenBatch,
    /// Has those at every layer's attention output.
    kept: Box<dyn Kept>,
}

impl LossGradients {
    /// Streams the original forwards and backwards, unless an earlier run has done so.
    pub fn take(
        job: &Job<'_>,
        store: &mut dyn StatisticsStore,
        observer: &mut dyn Observer,
    ) -> Result<Self, ConvertError> {
        let plan = job.plan;
        let cal_batch_size = plan.recipe().calibration.cal_batch_size;
        let joined = Joined::new(plan, job.calibration.batch(), job.calibration.sequence());
        let text = joined.apply(job.calibration);
        let batch_size = joined.batch_size;
        let split = joined.split();
        let mut kept = store.open(&Basis {
            name: "gradients",
            text: &text,
            options: &format!("{batch_size} {:?}", split.with_gradients()),
        })?;
        let of = |batch: usize| Some((batch, text.rows(batch * batch_size..(batch + 1) * batch_size)?));
        let batches: Vec<(usize, TokenBatch)> = split.with_gradients().into_iter().filter_map(of).collect();
        take_gradients(job.source, &batches, &mut *kept, observer)?;
        Ok(Self {
            text,
            batch_size,
            split,
            cal_batch_size,
            calibration: job.calibration.clone(),
            kept,
        })
    }

    /// Whether they are what another job for the same model would take.
    pub fn serve(&self, job: &Job<'_>) -> bool {
        self.cal_batch_size == job.plan.recipe().calibration.cal_batch_size && self.calibration == *job.calibration
    }

    /// Those of one layer by batch, where they were taken, `[batch·seq, hidden]`.
    ///
    /// # Errors
    /// They are not what was kept.
    pub fn of_layer(&self, layer: usize, source: &Decoder) -> Result<Vec<Option<Tensor<2>>>, ConvertError> {
        let (hidden, device) = (source.config().hidden_size, source.device());
        let of = |batch: usize| {
            let first = batch * self.batch_size;
            let sequences = self.batch_size.min(self.text.batch().saturating_sub(first));
            let shape = [sequences * self.text.sequence(), hidden];
            kept_gradients(&*self.kept, (layer, batch), shape, device)
        };
        let wanted = |batch: usize| self.split.needs_gradients(batch).then(|| of(batch)).transpose();
        (0..self.split.batches).map(wanted).collect()
    }
}

/// Which batches serve what.
pub(crate) struct Split {
    batches: usize,
    /// So many batches at the start give statistics.
    statistics: usize,
    /// So many batches at the end are held out; the only one serves both.
    held_out: usize,
    /// So many of the held-out ones are what candidates are compared on.
    choice: usize,
}

/// Examples by what they serve.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    /// To learn from.
    pub training: &'a [Example],
    /// Those of [`Self::training`] that sensitivities are taken from.
    pub statistics: &'a [Example],
    /// Neither.
    pub held_out: &'a [Example],
    /// Those of [`Self::held_out`] that candidates are compared on.
    pub choice: &'a [Example],
}

impl Split {
    fn new(batches: usize, tokens_per_batch: usize) -> Self {
        let held_out = (batches / HOLDOUT).max(1);
        let training = (batches - held_out).max(1);
        let first = |tokens: usize, of: usize| tokens.div_ceil(tokens_per_batch).min(of);
        Self {
            batches,
            statistics: first(STATISTICS, training),
            held_out,
            choice: first(CHOICE, held_out),
        }
    }

    /// Examples of all batches, divided.
    pub fn apply<'a>(&self, examples: &'a [Example]) -> Parts<'a> {
        let (training, held_out) = match self.batches {
            1 => (examples, examples),
            count => examples.split_at(count - self.held_out),
        };
        Parts {
            training,
            statistics: &training[..self.statistics],
            held_out,
            choice: &held_out[..self.choice],
        }
    }

    /// The batches that gradients are taken of.
    fn with_gradients(&self) -> Vec<usize> {
        (0..self.batches).filter(|batch| self.needs_gradients(*batch)).collect()
    }

    fn needs_gradients(&self, batch: usize) -> bool {
        let choice = self.batches - self.held_out;
        batch < self.statistics || (choice..choice + self.choice).contains(&batch)
    }
}

/// Samples one after the other in sequences of [`RUN`] tokens, or the model's longest, where they are shorter and there are
/// enough: a phase error that grows with distance must be seen at distances that will occur.
struct Joined {
    sequences: usize,
    sequence: usize,
    /// Sequences that go through a layer together.
    batch_size: usize,
}

impl Joined {
    /// So many samples of so many tokens, by a plan.
    fn new(plan: &Plan, samples: usize, tokens: usize) -> Self {
        let longest = plan.source().max_position_embeddings.min(RUN);
        let (sequences, sequence) = joined_shape(samples, tokens, longest);
        Self {
            sequences,
            sequence,
            batch_size: batch_sequences(plan.recipe(), tokens, sequence),
        }
    }

    fn split(&self) -> Split {
        Split::new(
            self.sequences.div_ceil(self.batch_size),
            self.batch_size * self.sequence,
        )
    }

    fn apply(&self, tokens: &TokenBatch) -> TokenBatch {
        let ids = tokens.ids()[..self.sequences * self.sequence].to_vec();
        TokenBatch::from_ids(ids, self.sequences, self.sequence).unwrap_or_else(|_| tokens.clone())
    }
}

/// Number and length of the sequences of about `longest` tokens that samples make.
fn joined_shape(samples: usize, tokens: usize, longest: usize) -> (usize, usize) {
    let factor = (longest / tokens.max(1)).clamp(1, samples.max(1));
    (samples / factor, tokens * factor)
}

/// How many tokens serve what.
pub(crate) struct Division {
    /// Tokens of a sequence.
    pub sequence: usize,
    /// Tokens of a batch.
    pub batch: usize,
    /// All tokens.
    pub tokens: usize,
    /// Those that gradients are taken of.
    pub with_gradients: usize,
    /// Those that sensitivities are taken from.
    pub statistics: usize,
    /// Those held out.
    pub held_out: usize,
    /// Those that candidates are compared on.
    pub choice: usize,
}

/// How a calibration text of so many samples will be divided.
pub(crate) fn division(plan: &Plan, samples: usize, tokens: usize) -> Division {
    let joined = Joined::new(plan, samples, tokens);
    let (split, batch) = (joined.split(), joined.batch_size * joined.sequence);
    let all = joined.sequences * joined.sequence;
    let of = |batches: usize| (batches * batch).min(all);
    Division {
        sequence: joined.sequence,
        batch,
        tokens: all,
        with_gradients: of(split.with_gradients().len()),
        statistics: of(split.statistics),
        held_out: of(split.held_out),
        choice: of(split.choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_samples_are_joined_and_none_is_lost_without_need() {
        let tokens = TokenBatch::from_ids((0..40).collect(), 10, 4).unwrap();
        let join = |longest| {
            let (sequences, sequence) = joined_shape(tokens.batch(), tokens.sequence(), longest);
            let joined = Joined {
                sequences,
                sequence,
                batch_size: 1,
            };
            joined.apply(&tokens)
        };
        let joined = join(8);
        assert_eq!((joined.batch(), joined.sequence()), (5, 8));
        assert_eq!(joined.ids(), tokens.ids());
        assert_eq!(join(3), tokens);
        assert_eq!(join(1000).batch(), 1);
    }

    #[test]
    fn batches_are_used_for_one_thing() {
        let split = Split::new(32, 2048);
        assert_eq!((split.statistics, split.held_out, split.choice), (2, 4, 1));
        let needed: Vec<usize> = (0..32).filter(|batch| split.needs_gradients(*batch)).collect();
        assert_eq!(needed, [0, 1, 28]);
        let split = Split::new(1, 512);
        assert_eq!((split.statistics, split.held_out, split.choice), (1, 1, 1));
        assert!(split.needs_gradients(0));
    }
}
