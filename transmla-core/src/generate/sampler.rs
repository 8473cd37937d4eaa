//! The choice of the next token.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::CoreError;

/// Chooses tokens from logits.
#[derive(Debug, Clone)]
pub enum Sampler {
    /// The most likely token.
    Greedy,
    /// A random token by its probability at a temperature.
    Random {
        /// Divides the logits; above 0.
        temperature: f64,
        /// Only the most likely tokens that have this much probability together, above 0, at most 1.
        top_p: f64,
        /// The random numbers.
        rng: Box<StdRng>,
    },
}

impl Sampler {
    /// A sampler of a temperature, which is greedy at 0; of the most likely tokens that have the probability `top_p` together;
    /// and of random numbers from a seed.
    pub fn new(temperature: f64, top_p: f64, seed: u64) -> Self {
        if temperature == 0.0 {
            return Self::Greedy;
        }
        Self::Random {
            temperature,
            top_p,
            rng: Box::new(StdRng::seed_from_u64(seed)),
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
        let likeliest_first = |a: &usize, b: &usize| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b));
        let chosen = match self {
            Self::Greedy => (0..logits.len()).min_by(likeliest_first),
            Self::Random {
                temperature,
                top_p,
                rng,
            } => {
                let mut order: Vec<usize> = (0..logits.len()).collect();
                order.sort_unstable_by(likeliest_first);
                let largest = f64::from(logits[order[0]]);
                // cumulative[i]: unnormalised probability of the i + 1 most likely tokens together.
                let cumulative: Vec<f64> = order
                    .iter()
                    .scan(0.0, |sum, id| {
                        *sum += ((f64::from(logits[*id]) - largest) / *temperature).exp();
                        Some(*sum)
                    })
                    .collect();
                let at = |sum: f64| cumulative.partition_point(|below| *below < sum).min(order.len() - 1);
                let kept = cumulative[at(*top_p * cumulative[order.len() - 1])];
                Some(order[at(rng.random::<f64>() * kept)])
            }
        };
        Ok(chosen.unwrap_or(0) as u32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOGITS: [f32; 4] = [0.0, 2.0, 1.0, -1.0];

    fn shares(temperature: f64, top_p: f64) -> [f64; 4] {
        let mut sampler = Sampler::new(temperature, top_p, 1);
        let mut shares = [0.0; 4];
        for _ in 0..20_000 {
            shares[sampler.choose(&LOGITS).unwrap() as usize] += 1.0 / 20_000.0;
        }
        shares
    }

    #[test]
    fn tokens_come_by_their_probability() {
        assert!((shares(0.0, 1.0)[1] - 1.0).abs() < 1e-9);
        let whole: f64 = LOGITS.iter().map(|l| f64::from(*l).exp()).sum();
        for (share, logit) in shares(1.0, 1.0).iter().zip(LOGITS) {
            assert!((share - f64::from(logit).exp() / whole).abs() < 0.02);
        }
        // 0.64 and 0.24 are the two largest; together they reach 0.8.
        let nucleus = shares(1.0, 0.8);
        assert!(
            nucleus[0] == 0.0 && nucleus[3] == 0.0 && (nucleus[1] - 0.731).abs() < 0.02,
            "{nucleus:?}"
        );
    }

    #[test]
    fn the_first_of_equals_and_nothing_from_nan() {
        assert_eq!(Sampler::Greedy.choose(&[1.0, 3.0, 3.0]).unwrap(), 1);
        assert!(Sampler::Greedy.choose(&[1.0, f32::NAN]).is_err());
        assert!(Sampler::Greedy.choose(&[]).is_err());
    }
}
