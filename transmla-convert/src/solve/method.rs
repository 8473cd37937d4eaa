//! What a method is asked, and what it is given to solve.

use burn::tensor::Device;
use transmla_core::checkpoint::CheckpointWriter;
use transmla_core::model::attention::LatentAttention;
use transmla_core::{Decoder, TokenBatch};

use crate::solve::evaluation::Evaluation;
use crate::solve::kept::StatisticsStore;
use crate::solve::work::{StageWork, TextSize};
use crate::spec::error::ConvertError;
use crate::spec::options::MethodName;
use crate::spec::plan::Plan;
use crate::spec::recipe::Recipe;
use crate::spec::report::{LayerReport, Observer, Report};

/// A way to find latent attention. Everything that depends on the method is asked here.
pub(crate) trait Method: Sync {
    /// What recipes call it.
    fn name(&self) -> MethodName;

    /// Steps of layer-wise reconstruction after the closed form.
    fn refinement(&self, recipe: &Recipe) -> usize;

    /// The method and its steps, in a few words.
    fn summary(&self, recipe: &Recipe) -> String;

    /// What a model card says of it, in Markdown: what is fitted, and whose work it is or builds on.
    fn credits(&self) -> &'static str;

    /// The method and how it will go about a plan, for people.
    fn describe(&self, plan: &Plan) -> String;

    /// Share of the calibration samples with random words in them, where a recipe does not say it.
    fn noise(&self) -> f64;

    /// Estimated peak of memory in bytes for `samples` calibration sequences of `tokens` tokens, without the weights that
    /// the caller keeps loaded and without evaluations.
    fn peak_bytes(&self, plan: &Plan, samples: usize, tokens: usize) -> u64;

    /// Most bytes of statistics that are kept on disk, for as much text.
    fn statistics_bytes(&self, plan: &Plan, samples: usize, tokens: usize) -> u64;

    /// The arithmetic of every stage between the evaluations of the original and of the written model, in their order.
    fn work(&self, plan: &Plan, text: &TextSize) -> Vec<StageWork>;

    /// Checks that there is enough calibration text.
    ///
    /// # Errors
    /// [`ConvertError::FewSamples`].
    fn check_text(&self, plan: &Plan, calibration: &TokenBatch) -> Result<(), ConvertError>;

    /// Whether two conversions of one original by this method go through the model together.
    fn shares_passes(&self, one: &Job<'_>, other: &Job<'_>) -> bool;

    /// What solves the conversions of one original, one group after another.
    fn solver(&self) -> Box<dyn Solver>;
}

/// A method at work on one original; it may keep what does not depend on a plan from one group to the next.
pub(crate) trait Solver {
    /// Finds and writes the attention of every layer, and the norm in front of it, for conversions that share their passes.
    /// Their jobs differ in plans alone. Gives what is known of each before its files are measured. `statistics` keeps what is
    /// to outlive memory or run; it is the same for all groups of the method.
    ///
    /// # Errors
    /// Weights or activations that are not finite, text that does not do, a source that cannot be read, a writer or a store that
    /// fails.
    fn solve(
        &mut self,
        outputs: &mut [Output<'_>],
        statistics: &mut dyn StatisticsStore,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError>;
}

/// What a conversion starts from.
#[derive(Clone, Copy)]
pub(crate) struct Job<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The model to convert.
    pub source: &'a Decoder,
    /// Calibration text, `[samples, seq]`.
    pub calibration: &'a TokenBatch,
    /// Text that perplexities are measured on.
    pub evaluation: Option<Evaluation<'a>>,
}

/// A conversion to solve, and where its layers go.
pub(crate) struct Output<'a> {
    /// What it starts from.
    pub job: Job<'a>,
    /// Takes the tensors.
    pub writer: &'a mut CheckpointWriter,
    /// Has layers that an earlier run has solved, and takes those of this one.
    pub layers: &'a mut dyn LayerStore,
}

/// Solved layers that outlive a run, in order from the first one on.
pub(crate) trait LayerStore {
    /// The next layer as an earlier run has solved it from the same start, and what was measured there.
    fn find(
        &mut self,
        plan: &Plan,
        layer: usize,
        device: &Device,
        observer: &mut dyn Observer,
    ) -> Option<(LatentAttention, LayerReport)>;

    /// Saves the next layer, whole or not at all.
    ///
    /// # Errors
    /// It cannot be written.
    fn keep(
        &mut self,
        plan: &Plan,
        attention: &LatentAttention,
        report: &LayerReport,
        observer: &mut dyn Observer,
    ) -> Result<(), ConvertError>;
}
