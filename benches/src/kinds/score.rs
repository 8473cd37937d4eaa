//! Answers to questions by their log-likelihoods, against a forward of every question with each answer.

use std::hint::black_box;

use anyhow::ensure;
use burn::tensor::{Device, Tensor};
use tempfile::TempDir;
use transmla_core::{Decoder, Residency, TokenBatch, host_values};
use transmla_eval::{Likelihood, Request, ScoringOptions, Silent, log_likelihoods};

use super::evaluate::folder_of;
use crate::case::{Case, Timed};
use crate::catalogue::{Network, Questions};
use crate::numbers::Numbers;

pub(crate) fn build(network: Network, questions: Questions) -> Box<dyn Case> {
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder_of(network, temporary.path());
    let open = |residency| Decoder::open(&folder, &Device::flex(), residency).expect("the model can be read");
    let mut numbers = Numbers::new(11);
    let mut ids = |count: usize| -> Vec<u32> {
        let ids = numbers.ids(count, network.vocabulary);
        ids.into_iter().map(|id| id as u32).collect()
    };
    let common = ids(questions.common);
    let mut requests = Vec::new();
    for _ in 0..questions.count {
        let context = [common.clone(), ids(questions.own)].concat();
        for _ in 0..questions.answers {
            requests.push(Request {
                context: context.clone(),
                continuation: ids(questions.answer),
            });
        }
    }
    Box::new(Scoring {
        loaded: open(Residency::Loaded),
        streamed: open(Residency::Streamed),
        length: questions.common + questions.own + questions.answer,
        requests,
        _folder: temporary,
    })
}

struct Scoring {
    loaded: Decoder,
    streamed: Decoder,
    /// Tokens of a question with an answer.
    length: usize,
    requests: Vec<Request>,
    /// Folder of the random weights, which streaming reads.
    _folder: TempDir,
}

impl Scoring {
    /// Computes the logits of every question with each answer, in batches of as many tokens as scoring has, and passes each
    /// to `take`.
    fn forward(&self, mut take: impl FnMut(Tensor<3>)) {
        let batch = (ScoringOptions::default().batch_tokens / self.length).max(1);
        for part in self.requests.chunks(batch) {
            let ids = part.iter().flat_map(|it| it.context.iter().chain(&it.continuation));
            let ids: Vec<i64> = ids.map(|id| i64::from(*id)).collect();
            let tokens = TokenBatch::from_ids(ids, part.len(), self.length).expect("all have the same length");
            take(
                self.loaded
                    .logits(&tokens, None)
                    .expect("the ids are in the vocabulary"),
            );
        }
    }

    fn score(&self, model: &Decoder, share: bool) -> Vec<Likelihood> {
        let options = ScoringOptions {
            share,
            ..ScoringOptions::default()
        };
        log_likelihoods(model, &self.requests, &options, &mut Silent).expect("the ids are in the vocabulary")
    }

    /// Log-likelihoods by their definition, in `f64`, from the logits of a forward pass.
    fn expected(&self) -> Vec<f64> {
        let mut found = Vec::with_capacity(self.requests.len());
        self.forward(|logits| {
            let [_, length, vocabulary] = logits.dims();
            let logits = host_values(logits).expect("logits can be read");
            for rows in logits.chunks_exact(length * vocabulary) {
                let request = &self.requests[found.len()];
                let first = request.context.len() - 1;
                let rows = rows[first * vocabulary..].chunks_exact(vocabulary);
                let of = |(target, row): (&u32, &[f32])| {
                    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                    let sum: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
                    f64::from(row[*target as usize] - largest) - sum.ln()
                };
                found.push(request.continuation.iter().zip(rows).map(of).sum());
            }
        });
        found
    }
}

impl Case for Scoring {
    /// All ways of scoring agree with the logits of a forward pass.
    fn check(&self) -> anyhow::Result<()> {
        let expected = self.expected();
        for (what, model, share) in [
            ("apart", &self.loaded, false),
            ("shared", &self.loaded, true),
            ("shared, streamed", &self.streamed, true),
        ] {
            for (found, expected) in self.score(model, share).iter().zip(&expected) {
                let difference = (found.log_likelihood - expected).abs();
                ensure!(difference < 1e-3, "{what}: {} for {expected}", found.log_likelihood);
            }
        }
        Ok(())
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        match strategy {
            0 => Box::new(|| {
                self.forward(|logits| {
                    black_box(logits);
                });
            }),
            1 => Box::new(|| {
                black_box(self.score(&self.loaded, false));
            }),
            2 => Box::new(|| {
                black_box(self.score(&self.loaded, true));
            }),
            _ => Box::new(|| {
                black_box(self.score(&self.streamed, true));
            }),
        }
    }
}
