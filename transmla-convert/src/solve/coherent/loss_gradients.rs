//! The calibration text as the coherent method divides it, and the loss's gradients on part of it.

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use transmla_calib::output_gradients;
use transmla_core::{CoreError, TokenBatch, host_values};

use crate::solve::coherent::example::Example;
use crate::solve::memory::batch_sequences;
use crate::solve::method::Job;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::report::{Observer, Stage};
use crate::text::corpus::RUN;

/// Tokens that the sensitivity statistics are taken from.
const STATISTICS: usize = 4096;

/// One in this many batches is held out.
const HOLDOUT: usize = 8;

/// Held-out tokens that candidates are compared on.
const CHOICE: usize = 2048;

/// Bytes of gradients that are held for a layer, for each of the model's dimensions.
pub(crate) fn gradient_bytes(text: &Division) -> u64 {
    text.with_gradients as u64 * size_of::<bf16>() as u64
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
    /// By batch, where needed, those at every layer's attention output.
    batches: Vec<Option<Vec<HeldGradients>>>,
}

impl LossGradients {
    /// Streams the original forwards and backwards.
    pub fn take(job: &Job<'_>, observer: &mut dyn Observer) -> Result<Self, ConvertError> {
        let plan = job.plan;
        let cal_batch_size = plan.recipe().calibration.cal_batch_size;
        let joined = Joined::new(plan, job.calibration.batch(), job.calibration.sequence());
        let text = joined.apply(job.calibration);
        let batch_size = joined.batch_size;
        let split = joined.split();
        observer.begin(Stage::Gradients);
        let total = (0..split.batches).filter(|batch| split.needs_gradients(*batch)).count();
        let mut done = 0;
        let batches = (0..split.batches)
            .map(|batch| {
                let start = batch * batch_size;
                let wanted = split
                    .needs_gradients(batch)
                    .then(|| text.rows(start..start + batch_size))
                    .flatten();
                let taken = wanted.map(|tokens| {
                    let layers = output_gradients(job.source, &tokens)?;
                    let held = layers.into_iter().map(HeldGradients::hold).collect();
                    done += 1;
                    observer.advance(done, total as u64);
                    held
                });
                taken.transpose()
            })
            .collect::<Result<_, CoreError>>()?;
        observer.end(Stage::Gradients, None);
        Ok(Self {
            text,
            batch_size,
            split,
            cal_batch_size,
            calibration: job.calibration.clone(),
            batches,
        })
    }

    /// Whether they are what another job for the same model would take.
    pub fn serve(&self, job: &Job<'_>) -> bool {
        self.cal_batch_size == job.plan.recipe().calibration.cal_batch_size && self.calibration == *job.calibration
    }

    /// Those of one layer by batch, where they were taken, `[batch·seq, hidden]`.
    pub fn of_layer<'a>(&'a self, layer: usize, device: &'a Device) -> impl Iterator<Item = Option<Tensor<2>>> + 'a {
        let one = move |layers: &Vec<HeldGradients>| layers[layer].on(device);
        self.batches.iter().map(move |batch| batch.as_ref().map(one))
    }
}

/// Gradients of one layer, on the host and in half the bytes: statistics are sums over thousands of them.
struct HeldGradients {
    values: Vec<bf16>,
    shape: [usize; 2],
}

impl HeldGradients {
    fn hold(gradients: Tensor<2>) -> Result<Self, CoreError> {
        let shape = gradients.dims();
        let values = host_values(gradients)?.into_iter().map(bf16::from_f32).collect();
        Ok(Self { values, shape })
    }

    fn on(&self, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = self.values.iter().map(|value| value.to_f32()).collect();
        Tensor::from_data(TensorData::new(values, self.shape), device)
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
        with_gradients: of((0..split.batches).filter(|batch| split.needs_gradients(*batch)).count()),
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

    #[test]
    fn gradients_are_held_to_three_digits() {
        let device = Device::flex();
        let values: Vec<f32> = (0..6).map(|i| 1e-6 * 10f32.powi(i) * 1.2345).collect();
        let gradients = Tensor::<2>::from_data(TensorData::new(values.clone(), [2, 3]), &device);
        let held = HeldGradients::hold(gradients).unwrap().on(&device);
        assert_eq!(held.dims(), [2, 3]);
        for (found, expected) in host_values(held).unwrap().into_iter().zip(values) {
            assert!((found / expected - 1.0).abs() < 4e-3, "{found} {expected}");
        }
    }
}
