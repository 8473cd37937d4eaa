//! The options that say how tokens are drawn.

use clap::Args;
use transmla_core::generate::{Sampler, Sampling};

use super::values;

/// How tokens are drawn.
#[derive(Debug, Args)]
pub struct SamplingArguments {
    /// Sampling temperature; 0 always takes the most likely token [default: 1 with --top-k, --top-p or --min-p, else 0, or
    /// in a chat what the model's settings say]
    #[arg(long, value_name = "T", value_parser = values::temperature, allow_negative_numbers = true)]
    temperature: Option<f64>,

    /// Sample from this many of the most likely tokens; 0 for all
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,

    /// Sample from the most likely tokens that have this probability together
    #[arg(long, value_name = "P", value_parser = values::probability)]
    top_p: Option<f64>,

    /// Sample from tokens with at least this share of the most likely one's probability
    #[arg(long, value_name = "SHARE", value_parser = values::portion)]
    min_p: Option<f64>,

    /// Make tokens that are in the text already less likely; 1 for no penalty
    #[arg(long, value_name = "PENALTY", value_parser = values::penalty)]
    repetition_penalty: Option<f64>,

    /// Seed for sampling
    #[arg(long, value_name = "SEED", default_value_t = 42)]
    seed: u64,
}

impl SamplingArguments {
    /// A sampler; what was not given is as in `default`.
    pub fn sampler(&self, default: Sampling) -> Sampler {
        let filtered = self.top_k.is_some_and(|count| count > 0) || self.top_p.is_some() || self.min_p.is_some();
        let sampling = Sampling {
            temperature: self
                .temperature
                .unwrap_or(match filtered && default.temperature == 0.0 {
                    // Who says what to draw among wants to draw.
                    true => 1.0,
                    false => default.temperature,
                }),
            top_k: match self.top_k {
                Some(0) => None,
                given => given.or(default.top_k),
            },
            top_p: self.top_p.unwrap_or(default.top_p),
            min_p: self.min_p.unwrap_or(default.min_p),
            repetition_penalty: self.repetition_penalty.unwrap_or(default.repetition_penalty),
        };
        Sampler::new(sampling, self.seed)
    }
}
