//! How long a conversion will take: its arithmetic, by how fast this machine is at each kind of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use transmla_convert::transmla_core::CoreError;
use transmla_convert::transmla_core::ModelConfig;
use transmla_convert::transmla_core::burn::tensor::Device;
use transmla_convert::{PlannedConversion, Probe, Stage, StageWork, Work, conversion_work};

use super::stages::{label, name};
use crate::table;

/// How long each kind of arithmetic is timed.
const TIMED: Duration = Duration::from_millis(40);

/// What real conversions were off by at most on the machine that this was made on, in percent.
pub const ACCURACY: usize = 30;

/// Arithmetic per second, by kind.
#[derive(Debug, Clone, Copy)]
pub struct Rates {
    products: f64,
    elements: f64,
    host: f64,
}

impl Rates {
    /// Those of this machine, for a model of these widths, when nothing else runs on it.
    ///
    /// # Errors
    /// The device fails.
    pub fn measure(config: &ModelConfig, device: &Device) -> Result<Self, CoreError> {
        Ok(Self {
            products: rate(&Probe::products(config, device))?,
            elements: rate(&Probe::elements(config, device))?,
            host: rate(&Probe::host(config))?,
        })
    }

    /// How long some work takes.
    pub fn seconds(&self, work: &Work) -> f64 {
        work.products / self.products + work.elements / self.elements + work.host / self.host
    }
}

/// The fastest of some pieces: others had to wait for something.
fn rate(probe: &Probe) -> Result<f64, CoreError> {
    // The first has memory to take and kernels to compile.
    probe.run()?;
    let started = Instant::now();
    let mut best = 0.0f64;
    while best == 0.0 || started.elapsed() < TIMED {
        let piece = Instant::now();
        let amount = probe.run()?;
        best = best.max(amount / piece.elapsed().as_secs_f64().max(1e-9));
    }
    Ok(best)
}

/// The time that a conversion will take.
#[derive(Debug, Clone)]
pub struct Estimate {
    rates: Rates,
    stages: Vec<StageWork>,
    /// Whether it is known how many windows are evaluated; if not, stages are for one.
    windows_known: bool,
    window: usize,
}

impl Estimate {
    /// That of a planned conversion, on a device whose speed is measured in a tenth of a second.
    ///
    /// # Errors
    /// The device fails.
    pub fn new(planned: &PlannedConversion, device: &Device) -> Result<Self, CoreError> {
        let (plan, texts, size) = (planned.plan(), planned.texts(), planned.text_size());
        Ok(Self {
            rates: Rates::measure(plan.source(), device)?,
            stages: conversion_work(plan, &size),
            windows_known: texts.windows().is_some() || texts.window_tokens().is_none(),
            window: size.window,
        })
    }

    /// One line for people.
    pub fn describe(&self) -> String {
        match self.windows_known {
            true => format!("{}: {}", in_all(self.total()), self.list(&|_| true)),
            false => format!(
                "{} ({}), and {} for each window of {} tokens",
                in_all(self.calibration()),
                self.list(&|stage| !is_evaluation(stage)),
                match self.evaluations() {
                    short if short < 10.0 => table::seconds(short),
                    long => table::about(long),
                },
                self.window
            ),
        }
    }

    /// The same once the number of windows is known; nothing if it was before.
    pub fn with_windows(&self, windows: usize) -> Option<String> {
        let seconds = self.calibration() + self.evaluations() * windows as f64;
        (!self.windows_known).then(|| in_all(seconds))
    }

    /// Stages and their times; foldings that may be tried are told together.
    fn list(&self, wanted: &dyn Fn(Stage) -> bool) -> String {
        let mut parts: Vec<(String, f64)> = Vec::new();
        for it in self.stages.iter().filter(|it| wanted(it.stage)) {
            let (name, seconds) = (short(it.stage), self.rates.seconds(&it.work));
            match parts.last_mut() {
                Some((last, sum)) if *last == name => *sum += seconds,
                _ => parts.push((name, seconds)),
            }
        }
        let parts = parts
            .into_iter()
            .map(|(name, seconds)| format!("{name} {}", table::about(seconds)));
        parts.collect::<Vec<_>>().join(", ")
    }

    fn sum(&self, wanted: &dyn Fn(Stage) -> bool) -> f64 {
        let stages = self.stages.iter().filter(|it| wanted(it.stage));
        stages.map(|it| self.rates.seconds(&it.work)).sum()
    }

    fn total(&self) -> f64 {
        self.sum(&|_| true)
    }

    fn calibration(&self) -> f64 {
        self.sum(&|stage| !is_evaluation(stage))
    }

    fn evaluations(&self) -> f64 {
        self.sum(&is_evaluation)
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let seconds = |wanted: &dyn Fn(Stage) -> bool| -> Value {
            let stages = self.stages.iter().filter(|it| wanted(it.stage));
            stages
                .map(|it| (name(it.stage), json!(self.rates.seconds(&it.work))))
                .collect()
        };
        let (stages, per_window) = match self.windows_known {
            true => (seconds(&|_| true), Value::Null),
            false => (seconds(&|stage| !is_evaluation(stage)), seconds(&is_evaluation)),
        };
        json!({
            "seconds": self.windows_known.then(|| self.total()),
            "stages": stages,
            "per_window": per_window,
            "accuracy_percent": ACCURACY,
            "product_gflops": self.rates.products / 1e9,
        })
    }
}

fn in_all(seconds: f64) -> String {
    format!("about {}, to within {ACCURACY} %", table::about(seconds))
}

fn is_evaluation(stage: Stage) -> bool {
    matches!(
        stage,
        Stage::EvaluateOriginal | Stage::EvaluateDecoupled | Stage::EvaluateConverted
    )
}

/// A stage in a list.
fn short(stage: Stage) -> String {
    match stage {
        Stage::WriteText => "writing text".into(),
        Stage::EvaluateOriginal => "original".into(),
        Stage::EvaluateDecoupled => "partial RoPE".into(),
        Stage::EvaluateConverted => "MLA".into(),
        Stage::Decouple => "decoupling".into(),
        Stage::Gradients => "gradients".into(),
        Stage::TryFreqfold(_) => "freqfolds".into(),
        Stage::Compress => "layers".into(),
        other => label(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn estimate(windows_known: bool) -> Estimate {
        let stage = |stage, products| StageWork {
            stage,
            work: Work {
                products,
                ..Work::default()
            },
        };
        Estimate {
            rates: Rates {
                products: 1e9,
                elements: 1e9,
                host: 1e9,
            },
            stages: vec![
                stage(Stage::EvaluateOriginal, 30e9),
                stage(Stage::Gradients, 10e9),
                stage(Stage::Compress, 200e9),
                stage(Stage::EvaluateConverted, 40e9),
            ],
            windows_known,
            window: 2048,
        }
    }

    #[test]
    fn stages_add_up() {
        assert_eq!(
            estimate(true).describe(),
            "about 5 min, to within 30 %: original 30 s, gradients 10 s, layers 3 min, MLA 40 s"
        );
        assert_eq!(estimate(true).with_windows(5), None);
        assert_eq!(estimate(true).json()["seconds"], 280.0);
    }

    #[test]
    fn windows_that_are_not_counted_yet_are_told_one_by_one() {
        assert_eq!(
            estimate(false).describe(),
            "about 4 min, to within 30 % (gradients 10 s, layers 3 min), and 70 s for each window of 2048 tokens"
        );
        assert_eq!(
            estimate(false).with_windows(10).as_deref(),
            Some("about 15 min, to within 30 %")
        );
        let json = estimate(false).json();
        assert_eq!(json["seconds"], Value::Null);
        assert_eq!(json["per_window"]["evaluate_mla"], 40.0);
    }
}
