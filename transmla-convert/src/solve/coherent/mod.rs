//! The coherent method: slots by phase coherence, a PCA in the metric of the loss, layer-wise reconstruction.

pub mod closed_form;
pub mod example;
pub mod gradient_pass;
pub mod groups;
pub mod loss_gradients;
pub mod memory;
pub mod output_regression;
pub mod refine;
pub mod sequential;
pub mod work;

use transmla_core::TokenBatch;

use self::loss_gradients::{LossGradients, division, kept_bytes};
use self::sequential::{sequential, step_sequences, steps_of};
use crate::solve::kept::StatisticsStore;
use crate::solve::method::{Job, Method, Output, Solver};
use crate::solve::work::{StageWork, TextSize};
use crate::spec::error::ConvertError;
use crate::spec::options::MethodName;
use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;
use crate::spec::report::{Observer, Report};

/// Share of samples with noise: what is fitted to the calibration text alone gives up what other text needs.
const NOISE: f64 = 0.25;

/// The coherent method.
pub(crate) struct Coherent;

impl Method for Coherent {
    fn name(&self) -> MethodName {
        MethodName::Coherent
    }

    fn refinement(&self, recipe: &Recipe) -> usize {
        steps_of(recipe)
    }

    fn summary(&self, recipe: &Recipe) -> String {
        format!("coherent, {} refinement steps", steps_of(recipe))
    }

    fn credits(&self) -> &'static str {
        "Its layers were fitted to a calibration text one after another, by transmla's own method `coherent`; the model as a \
         whole was not fine-tuned. The method builds on [TransMLA](https://arxiv.org/abs/2502.07864)."
    }

    fn describe(&self, plan: &Plan) -> String {
        match steps_of(plan.recipe()) {
            0 => "coherent".into(),
            steps => {
                let s = if steps == 1 { "" } else { "s" };
                let of = match step_sequences(plan.recipe()) {
                    1 => String::new(),
                    sequences => format!(" of {sequences} sequences"),
                };
                format!("coherent, refined in {steps} step{s}{of}")
            }
        }
    }

    fn noise(&self) -> f64 {
        NOISE
    }

    fn peak_bytes(&self, plan: &Plan, samples: usize, tokens: usize) -> u64 {
        memory::peak_bytes(plan, samples, tokens)
    }

    /// The residual stream behind every layer, each of which is given up for the gradients there.
    fn statistics_bytes(&self, plan: &Plan, samples: usize, tokens: usize) -> u64 {
        let source = plan.source();
        let (hidden, layers) = (source.hidden_size as u64, source.num_hidden_layers as u64);
        let [states, gradients] = kept_bytes(&division(plan, samples, tokens)).map(|bytes| bytes * hidden);
        // In between, two gradients with respect to the residual stream.
        states * (layers + 2) + gradients
    }

    fn work(&self, plan: &Plan, text: &TextSize) -> Vec<StageWork> {
        work::work(plan, text)
    }

    /// Any text will do.
    fn check_text(&self, _: &Plan, _: &TokenBatch) -> Result<(), ConvertError> {
        Ok(())
    }

    /// Every layer is solved on the inputs that the converted layers before it give.
    fn shares_passes(&self, _: &Job<'_>, _: &Job<'_>) -> bool {
        false
    }

    fn solver(&self) -> Box<dyn Solver> {
        Box::new(LayerByLayer { gradients: None })
    }
}

/// One model after another; the gradients of the loss serve all that have the same text.
struct LayerByLayer {
    gradients: Option<LossGradients>,
}

impl Solver for LayerByLayer {
    fn solve(
        &mut self,
        outputs: &mut [Output<'_>],
        statistics: &mut dyn StatisticsStore,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError> {
        let mut reports = Vec::with_capacity(outputs.len());
        for output in outputs {
            let known = self.gradients.take().filter(|known| known.serve(&output.job));
            let known = known.map_or_else(|| LossGradients::take(&output.job, statistics, observer), Ok)?;
            let known = self.gradients.insert(known);
            reports.push(Report {
                layers: sequential(output, known, observer)?,
                ..Report::default()
            });
        }
        Ok(reports)
    }
}
