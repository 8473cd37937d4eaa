//! The choice of the next token.

use std::collections::HashSet;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::CoreError;

/// How the next token is drawn; the default takes the most likely one.
///
/// The filters apply in the order of transformers: repetition penalty, temperature, `top_k`, `top_p`, `min_p`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the most likely token and makes the rest of this but the penalty meaningless.
    pub temperature: f64,
    /// Only so many of the most likely tokens, at least 1.
    pub top_k: Option<usize>,
    /// Only the most likely tokens that have this much probability together, above 0, at most 1.
    pub top_p: f64,
    /// Only tokens that have at least this share of the most likely one's probability, 0 to 1.
    pub min_p: f64,
    /// Logits of tokens that are in the text already are divided by this where positive, multiplied where negative (CTRL, arXiv
    /// 1909.05858); 1 for no penalty.
    pub repetition_penalty: f64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: None,
            top_p: 1.0,
            min_p: 0.0,
            repetition_penalty: 1.0,
        }
    }
}

/// Chooses tokens from logits.
#[derive(Debug, Clone)]
pub struct Sampler {
    sampling: Sampling,
    rng: Box<StdRng>,
    seen: HashSet<u32>,
}

impl Sampler {
    /// A sampler with random numbers from a seed.
    pub fn new(sampling: Sampling, seed: u64) -> Self {
        Self {
            sampling,
            rng: Box::new(StdRng::seed_from_u64(seed)),
            seen: HashSet::new(),
        }
    }

    /// A sampler that takes the most likely token.
    pub fn greedy() -> Self {
        Self::new(Sampling::default(), 0)
    }

    /// Tells which tokens are in the text; their repetition is penalised.
    pub fn saw(&mut self, ids: &[u32]) {
        if self.sampling.repetition_penalty != 1.0 {
            self.seen.extend(ids);
        }
    }

    /// The next token's id, from the logits of all token ids; the first of equally likely ones.
    ///
    /// # Errors
    /// [`CoreError::NonFiniteLogits`] if a logit is NaN or infinite, or there are none.
    pub fn choose(&mut self, logits: &[f32]) -> Result<u32, CoreError> {
        if logits.is_empty() || logits.iter().any(|logit| !logit.is_finite()) {
            return Err(CoreError::NonFiniteLogits);
        }
        let penalised = self.penalised(logits);
        let logits = penalised.as_deref().unwrap_or(logits);
        let chosen = match self.sampling.temperature > 0.0 {
            false => (0..logits.len()).min_by(likeliest_first(logits)),
            true => Some(self.draw(logits)),
        };
        let chosen = chosen.unwrap_or(0) as u32;
        self.saw(&[chosen]);
        Ok(chosen)
    }

    /// Logits with the penalty on what was seen, if there is one.
    fn penalised(&self, logits: &[f32]) -> Option<Vec<f32>> {
        let penalty = self.sampling.repetition_penalty as f32;
        if self.seen.is_empty() {
            return None;
        }
        let mut logits = logits.to_vec();
        for id in &self.seen {
            if let Some(logit) = logits.get_mut(*id as usize) {
                *logit = if *logit < 0.0 {
                    *logit * penalty
                } else {
                    *logit / penalty
                };
            }
        }
        Some(logits)
    }

    /// A token by its probability among those that the filters leave.
    fn draw(&mut self, logits: &[f32]) -> usize {
        let Sampling {
            temperature,
            top_k,
            top_p,
            min_p,
            ..
        } = self.sampling;
        let uniform = self.rng.random::<f64>();
        if top_k.is_none()
            && top_p >= 1.0
            && min_p <= 0.0
            && let Some(chosen) = among_likeliest(logits, temperature, uniform)
        {
            return chosen;
        }
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_unstable_by(likeliest_first(logits));
        order.truncate(top_k.unwrap_or(usize::MAX).max(1));
        let largest = f64::from(logits[order[0]]);
        // Probabilities in units of the most likely one's, falling; cumulative[i] is that of the i + 1 most likely together.
        let share = |id: &usize| ((f64::from(logits[*id]) - largest) / temperature).exp();
        let shares: Vec<f64> = order.iter().map(share).collect();
        let cumulative: Vec<f64> = shares
            .iter()
            .scan(0.0, |sum, share| {
                *sum += share;
                Some(*sum)
            })
            .collect();
        let last = shares.partition_point(|share| *share >= min_p).max(1) - 1;
        let at = |sum: f64| cumulative.partition_point(|below| *below < sum).min(last);
        let kept = cumulative[at(top_p * cumulative[cumulative.len() - 1])];
        order[at(uniform * kept)]
    }
}

/// How many tokens are put in order before all are.
const LIKELIEST: usize = 512;

/// The token that a number in [0, 1) falls on, if it is one of the most likely: they nearly always have it, and the others need
/// not be put in order.
fn among_likeliest(logits: &[f32], temperature: f64, uniform: f64) -> Option<usize> {
    if logits.len() <= 2 * LIKELIEST {
        return None;
    }
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.select_nth_unstable_by(LIKELIEST, likeliest_first(logits));
    order.truncate(LIKELIEST);
    order.sort_unstable_by(likeliest_first(logits));
    let largest = f64::from(logits[order[0]]);
    let share = |logit: f32| ((f64::from(logit) - largest) / temperature).exp();
    let wanted = uniform * logits.iter().map(|logit| share(*logit)).sum::<f64>();
    let mut below = 0.0;
    order.into_iter().find(|id| {
        below += share(logits[*id]);
        below >= wanted
    })
}

/// Falling logits; of equal ones the first id first.
fn likeliest_first(logits: &[f32]) -> impl Fn(&usize, &usize) -> std::cmp::Ordering + '_ {
    |a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    fn shares(sampling: Sampling) -> [f64; 4] {
        let mut sampler = Sampler::new(sampling, 1);
        let mut shares = [0.0; 4];
        for _ in 0..20_000 {
            shares[sampler.choose(&LOGITS).unwrap() as usize] += 1.0 / 20_000.0;
        }
        shares
    }

    fn warm() -> Sampling {
        Sampling {
            temperature: 1.0,
            ..Sampling::default()
        }
    }

    /// Whether the shares are those of a softmax over the tokens of these indices alone.
    fn only(shares: [f64; 4], kept: &[usize]) -> bool {
        let whole: f64 = kept.iter().map(|id| f64::from(LOGITS[*id]).exp()).sum();
        (0..4).all(|id| match kept.contains(&id) {
            true => (shares[id] - f64::from(LOGITS[id]).exp() / whole).abs() < 0.02,
            false => shares[id] == 0.0,
        })
    }

    #[test]
    fn tokens_come_by_their_probability() {
        assert!((shares(Sampling::default())[1] - 1.0).abs() < 1e-9);
        assert!(only(shares(warm()), &[0, 1, 2, 3]));
    }

    #[test]
    fn filters_leave_the_most_likely_tokens() {
        // Probabilities are 0.64, 0.24, 0.09 and 0.03.
        let cases = [
            (Sampling { top_p: 0.8, ..warm() }, &[1, 2][..]),
            (Sampling { top_p: 1e-9, ..warm() }, &[1]),
            (
                Sampling {
                    top_k: Some(1),
                    ..warm()
                },
                &[1],
            ),
            (
                Sampling {
                    top_k: Some(3),
                    ..warm()
                },
                &[0, 1, 2],
            ),
            (
                Sampling {
                    top_k: Some(99),
                    ..warm()
                },
                &[0, 1, 2, 3],
            ),
            (Sampling { min_p: 0.3, ..warm() }, &[1, 2]),
            (Sampling { min_p: 1.0, ..warm() }, &[1]),
            // 0.64 and 0.24 of 0.97 are less than 0.95, so top_p alone would keep three.
            (
                Sampling {
                    top_k: Some(3),
                    top_p: 0.95,
                    min_p: 0.2,
                    ..warm()
                },
                &[1, 2],
            ),
        ];
        for (sampling, kept) in cases {
            assert!(only(shares(sampling), kept), "{sampling:?}: {:?}", shares(sampling));
        }
    }

    #[test]
    fn the_likeliest_of_many_are_those_of_all_in_order() {
        let logits: Vec<f32> = (0..3000).map(|id| ((id * 7919) % 3000) as f32 / 400.0).collect();
        let mut order: Vec<usize> = (0..logits.len()).collect();
        order.sort_unstable_by(likeliest_first(&logits));
        let shares: Vec<f64> = order.iter().map(|id| f64::from(logits[*id]).exp()).collect();
        let whole: f64 = shares.iter().sum();
        let mut below = 0.0;
        for (place, (id, share)) in order.iter().zip(&shares).enumerate() {
            let found = among_likeliest(&logits, 1.0, (below + 0.5 * share) / whole);
            assert_eq!(found, (place < LIKELIEST).then_some(*id), "{place}");
            below += share;
        }
        let mut sampler = Sampler::new(warm(), 3);
        let drawn = (0..2000).map(|_| sampler.choose(&logits).unwrap() as usize);
        let likely = drawn.filter(|id| order[..LIKELIEST].contains(id)).count() as f64 / 2000.0;
        assert!(
            (likely - shares[..LIKELIEST].iter().sum::<f64>() / whole).abs() < 0.05,
            "{likely}"
        );
    }

    #[test]
    fn what_was_seen_becomes_less_likely() {
        let sampling = Sampling {
            repetition_penalty: 3.0,
            ..Sampling::default()
        };
        let mut sampler = Sampler::new(sampling, 0);
        // 2 becomes 2/3, and 1 is next; then 1/3 each way.
        assert_eq!([1, 2, 1, 1].map(|_| sampler.choose(&LOGITS).unwrap()), [1, 2, 1, 1]);
        // Negative logits fall too.
        let mut sampler = Sampler::new(sampling, 0);
        sampler.saw(&[0]);
        assert_eq!(sampler.choose(&[-1.0, -2.0]).unwrap(), 1);
    }

    #[test]
    fn the_first_of_equals_and_nothing_from_nan() {
        assert_eq!(Sampler::greedy().choose(&[1.0, 3.0, 3.0]).unwrap(), 1);
        assert!(Sampler::greedy().choose(&[1.0, f32::NAN]).is_err());
        assert!(Sampler::greedy().choose(&[]).is_err());
    }
}
