//! The published method (arXiv 2502.07864): RoPE is decoupled in a first pass, keys and values are factorised in a second.

pub mod compress;
pub mod decouple;
pub mod decoupled;
pub mod kept_fits;
pub mod second_pass;
pub mod work;

use transmla_core::TokenBatch;
use transmla_eval::EvalOptions;

use self::decouple::{check_samples, decouple_with};
use self::decoupled::DecoupledModel;
use self::second_pass::second_pass;
use crate::solve::evaluation::evaluate;
use crate::solve::kept::{Basis, StatisticsStore};
use crate::solve::memory::Needs;
use crate::solve::method::{Job, Method, Output, Solver};
use crate::solve::work::{StageWork, TextSize};
use crate::spec::error::ConvertError;
use crate::spec::options::{FreqFold, MethodName};
use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;
use crate::spec::report::{Observer, Report, Stage};

/// The published method.
pub(crate) struct Published;

impl Method for Published {
    fn name(&self) -> MethodName {
        MethodName::Transmla
    }

    /// It has none.
    fn refinement(&self, _: &Recipe) -> usize {
        0
    }

    fn summary(&self, _: &Recipe) -> String {
        "transmla".into()
    }

    fn credits(&self) -> &'static str {
        "The method is the published one of [TransMLA](https://arxiv.org/abs/2502.07864), in closed form: nothing was trained."
    }

    fn describe(&self, plan: &Plan) -> String {
        match plan.recipe().freqfold {
            FreqFold::Fixed(fold) => format!("transmla, freqfold {fold}"),
            FreqFold::Auto => {
                let candidates: Vec<String> = plan.freqfolds().iter().map(usize::to_string).collect();
                format!(
                    "transmla, freqfold one of {}, by held-out calibration text",
                    candidates.join(", ")
                )
            }
        }
    }

    fn noise(&self) -> f64 {
        0.0
    }

    /// What is kept of the first pass is in memory too, of all layers, until a folding is chosen.
    fn peak_bytes(&self, plan: &Plan, samples: usize, tokens: usize) -> u64 {
        let needs = Needs::of(plan, samples, tokens);
        let fits = self.statistics_bytes(plan, samples, tokens);
        needs.layer + needs.states + needs.fed + needs.activations + needs.factorisation + fits
    }

    /// Rotations of every layer and folding, and keys that stand for normalised ones, each also without the held-out text.
    fn statistics_bytes(&self, plan: &Plan, _: usize, _: usize) -> u64 {
        let (source, folds) = (plan.source(), plan.freqfolds());
        let (keys, heads) = (plan.grouped().key_width() as u64, plan.head_shape().key_heads as u64);
        // Half of the key's numbers, each by the entries of its group.
        let rotations: u64 = folds.iter().map(|fold| 8 * keys / 2 * heads * *fold as u64).sum();
        let normed = match source.family.qk_norm.is_there() {
            true => 4 * keys * (source.hidden_size as u64 + 1) + 8 * (heads + 2),
            false => 0,
        };
        let times = if folds.len() > 1 { 2 } else { 1 };
        times * (rotations + normed) * source.num_hidden_layers as u64
    }

    fn work(&self, plan: &Plan, text: &TextSize) -> Vec<StageWork> {
        work::work(plan, text)
    }

    fn check_text(&self, plan: &Plan, calibration: &TokenBatch) -> Result<(), ConvertError> {
        check_samples(plan, calibration)
    }

    /// Ranks, norms and form come after RoPE is decoupled.
    fn shares_passes(&self, one: &Job<'_>, other: &Job<'_>) -> bool {
        let decoupling = |job: &Job<'_>| {
            let recipe = job.plan.recipe();
            (
                recipe.qk_mqa_dim,
                job.plan.freqfolds().to_vec(),
                recipe.key_norm,
                recipe.calibration.cal_batch_size,
            )
        };
        decoupling(one) == decoupling(other) && one.calibration == other.calibration
    }

    fn solver(&self) -> Box<dyn Solver> {
        Box::new(Passes)
    }
}

/// Everything in a plan that a decoupling follows from.
fn decoupling_options(job: &Job<'_>, evaluation: &EvalOptions) -> String {
    let (plan, recipe) = (job.plan, job.plan.recipe());
    let widths = (recipe.qk_mqa_dim, plan.freqfolds(), plan.latent().qk_rope_head_dim);
    let batches = (recipe.calibration.cal_batch_size, evaluation.batch_size);
    format!(
        "{widths:?} {:?} {batches:?} {:?}",
        recipe.key_norm,
        plan.converted().rope
    )
}

/// Two passes over the text for each group.
struct Passes;

impl Solver for Passes {
    fn solve(
        &mut self,
        outputs: &mut [Output<'_>],
        statistics: &mut dyn StatisticsStore,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError> {
        let Some(first) = outputs.first() else {
            return Ok(Vec::new());
        };
        let job = first.job;
        let options = job.evaluation.map_or_else(EvalOptions::default, |it| it.options);
        let mut kept = statistics.open(&Basis {
            name: "decoupling",
            text: job.calibration,
            options: &decoupling_options(&job, &options),
        })?;
        let decoupled = decouple_with(&job, &options, &mut *kept, observer)?;
        let model = DecoupledModel::new(job.source, job.plan, &decoupled.rotations).with_keys(&decoupled.keys);
        let partial_rope = evaluate(job.evaluation, &model, Stage::EvaluateDecoupled, observer)?;
        let layers = second_pass(&job, &model, outputs, observer)?;
        let report = |layers| Report {
            partial_rope,
            freqfold: Some(decoupled.freqfold),
            freqfold_trials: decoupled.trials.clone(),
            layers,
            ..Report::default()
        };
        Ok(layers.into_iter().map(report).collect())
    }
}
