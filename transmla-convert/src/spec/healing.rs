//! How a converted model is trained on its original: `[heal]` of `transmla.toml`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::spec::calibration_text::CalibrationText;

/// Which weights are trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
pub enum Trained {
    /// The projections of attention, which the conversion has made.
    #[default]
    Attention,
    /// All projections of the layers: those of the MLPs or experts too.
    All,
    /// A low-rank change of each projection of attention, merged when the model is written.
    Lora,
}

impl fmt::Display for Trained {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Attention => "attention",
            Self::All => "all projections",
            Self::Lora => "low-rank changes of attention",
        })
    }
}

/// How a converted model is trained to predict what its original predicts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Healing {
    /// The version of this toolkit.
    pub transmla_version: String,
    /// Which weights are trained.
    pub train: Trained,
    /// Rank of the changes, with `train = "lora"`.
    pub lora_rank: usize,
    /// Steps of the optimiser.
    pub steps: usize,
    /// Sequences of a step.
    pub batch_size: usize,
    /// Sequences that go through the model together; a step adds up the gradients of several.
    pub micro_batch: usize,
    /// Largest step of AdamW, in the size of the weights: 0.01 changes an entry by up to about a hundredth of the root mean
    /// square of its row and column.
    pub learning_rate: f64,
    /// Share of the steps in which the learning rate grows to its largest; then it falls to 0 by half a cosine.
    pub warmup: f64,
    /// What weights are drawn towards 0 by in each step, times the learning rate (decoupled, as AdamW has it).
    pub weight_decay: f64,
    /// Longest gradient; a longer one is shortened to it. 0 for no limit.
    pub max_grad_norm: f64,
    /// Weight of the divergence from the original's predictions.
    pub kl_weight: f64,
    /// Weight of the cross-entropy to the text.
    pub ce_weight: f64,
    /// How many of the original's largest logits are kept on disk before the training; absent for running the original at every
    /// step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teacher_top_k: Option<usize>,
    /// Share of the text that is not trained on and picks the step that is kept.
    pub held_out: f64,
    /// How often the held-out text is looked at and the state is saved, in the course of the training.
    pub checks: usize,
    /// The text.
    pub text: CalibrationText,
}

impl Default for Healing {
    fn default() -> Self {
        Self {
            transmla_version: env!("CARGO_PKG_VERSION").into(),
            train: Trained::default(),
            lora_rank: 16,
            steps: 200,
            batch_size: 8,
            micro_batch: 4,
            learning_rate: 0.001,
            warmup: 0.1,
            weight_decay: 0.0,
            max_grad_norm: 1.0,
            kl_weight: 1.0,
            ce_weight: 0.0,
            teacher_top_k: None,
            held_out: 0.05,
            checks: 10,
            text: CalibrationText::default(),
        }
    }
}

/// An option of a healing is out of its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot heal: `{field}` is {found}; expected {expected}")]
pub struct HealingError {
    field: &'static str,
    found: String,
    expected: &'static str,
}

impl Healing {
    /// Checks what no type says.
    ///
    /// # Errors
    /// [`HealingError`] for a number out of its range.
    pub(crate) fn check(&self) -> Result<(), HealingError> {
        let wrong = |field, found: String, expected| Err(HealingError { field, found, expected });
        for (field, number) in [
            ("steps", self.steps),
            ("batch_size", self.batch_size),
            ("micro_batch", self.micro_batch),
            ("lora_rank", self.lora_rank),
            ("checks", self.checks),
            ("teacher_top_k", self.teacher_top_k.unwrap_or(1)),
        ] {
            if number == 0 {
                return wrong(field, "0".into(), "a positive integer");
            }
        }
        for (field, number) in [
            ("learning_rate", self.learning_rate),
            ("weight_decay", self.weight_decay),
            ("max_grad_norm", self.max_grad_norm),
            ("kl_weight", self.kl_weight),
            ("ce_weight", self.ce_weight),
        ] {
            if !(number >= 0.0 && number.is_finite()) {
                return wrong(field, number.to_string(), "a number of 0 or more");
            }
        }
        if self.kl_weight + self.ce_weight <= 0.0 {
            return wrong(
                "kl_weight",
                "0".into(),
                "a number above 0 where `ce_weight` is 0: there is nothing to learn from",
            );
        }
        if !(0.0..=1.0).contains(&self.warmup) {
            return wrong("warmup", self.warmup.to_string(), "a share of 0 to 1 of the steps");
        }
        if !(self.held_out > 0.0 && self.held_out < 1.0) {
            return wrong(
                "held_out",
                self.held_out.to_string(),
                "a share of the text above 0, below 1",
            );
        }
        Ok(())
    }

    /// The learning rate of a step, by its index.
    pub(crate) fn rate(&self, step: usize) -> f64 {
        let (step, steps) = (step as f64, self.steps as f64);
        let warm = (self.warmup * steps).max(1.0);
        if step < warm {
            return self.learning_rate * ((step + 1.0) / warm).min(1.0);
        }
        let share = (step - warm) / (steps - warm).max(1.0);
        self.learning_rate * 0.5 * (1.0 + (std::f64::consts::PI * share).cos())
    }

    /// Whether the held-out text is looked at once so many steps are done.
    pub(crate) fn is_check(&self, done: usize) -> bool {
        done == self.steps || done * self.checks / self.steps > (done - 1) * self.checks / self.steps
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        let mut loss = Vec::new();
        for (weight, name) in [
            (self.kl_weight, "the divergence from the original's predictions"),
            (self.ce_weight, "the cross-entropy to the text"),
        ] {
            match weight {
                0.0 => {}
                1.0 => loss.push(name.to_owned()),
                weight => loss.push(format!("{weight} x {name}")),
            }
        }
        let rank = match self.train {
            Trained::Lora => format!(" of rank {}", self.lora_rank),
            _ => String::new(),
        };
        format!(
            "{}{rank}, {} steps of {} sequences on {}, AdamW, learning rate {}",
            self.train,
            self.steps,
            self.batch_size,
            loss.join(" and "),
            self.learning_rate
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_grows_and_falls_by_half_a_cosine() {
        let healing = Healing {
            steps: 100,
            learning_rate: 2.0,
            ..Healing::default()
        };
        let rates: Vec<f64> = (0..100).map(|step| healing.rate(step)).collect();
        assert!((rates[0] - 0.2).abs() < 1e-12 && rates[9] == 2.0 && rates[10] == 2.0);
        assert!(rates[10..].windows(2).all(|pair| pair[0] > pair[1]));
        assert!((rates[55] - 1.0).abs() < 1e-12 && rates[99] < 0.001);
    }

    #[test]
    fn checks_are_spread_over_the_steps() {
        let checks = |steps, checks| {
            let healing = Healing {
                steps,
                checks,
                ..Healing::default()
            };
            (1..=steps).filter(|done| healing.is_check(*done)).collect::<Vec<_>>()
        };
        assert_eq!(checks(10, 2), [5, 10]);
        assert_eq!(checks(7, 3), [3, 5, 7]);
        assert_eq!(checks(2, 10), [1, 2]);
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        let with = |change: &dyn Fn(&mut Healing)| {
            let mut healing = Healing::default();
            change(&mut healing);
            healing.check().map_err(|error| error.to_string())
        };
        assert_eq!(with(&|_| {}), Ok(()));
        for (change, word) in [
            (&(|it: &mut Healing| it.steps = 0) as &dyn Fn(&mut Healing), "steps"),
            (&|it| it.learning_rate = f64::NAN, "learning_rate"),
            (&|it| it.kl_weight = 0.0, "ce_weight"),
            (&|it| it.held_out = 1.0, "held_out"),
            (&|it| it.teacher_top_k = Some(0), "teacher_top_k"),
        ] {
            assert!(with(change).unwrap_err().contains(word), "{word}");
        }
    }
}
