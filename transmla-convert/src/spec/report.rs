//! What a conversion tells while it runs and when it is done.

use std::fmt;
use std::path::{Path, PathBuf};

use transmla_core::Decoder;
use transmla_eval::Perplexity;
use transmla_eval::tasks::TaskRow;

use crate::spec::figures::LayerFigures;
use crate::spec::healing_report::{HealCheck, HealStep};
use crate::spec::plan::Plan;
use crate::spec::purpose::TextPurpose;

/// A part of a conversion that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Calibration text that the original writes.
    WriteText,
    /// Perplexity of the original model.
    EvaluateOriginal,
    /// Pass over the calibration text that decouples RoPE.
    Decouple,
    /// Perplexity of one freqfold on held-out calibration text.
    TryFreqfold(
        /// The candidate.
        usize,
    ),
    /// Perplexity after RoPE decoupling.
    EvaluateDecoupled,
    /// Gradients of the loss at every layer's attention output (coherent method).
    Gradients,
    /// Pass over the calibration text that factorises and writes.
    Compress,
    /// Perplexity of the files that were written.
    EvaluateConverted,
    /// The original's largest logits, before a healing.
    Teach,
    /// The training of a healing.
    Heal,
    /// The distance of a healed model's files from the original, on held-out text.
    CheckHealed,
    /// Answers of the original model to the questions of tasks.
    AskOriginal,
    /// Those of the files that were written.
    AskConverted,
}

/// What becomes of a solved layer in the resume cache, where layers are until their model stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SavedLayer {
    /// It has been solved and saved.
    Saved,
    /// An earlier run has saved it from the same start: it is taken over.
    Reused,
    /// An earlier run has saved it, from other weights, text, choices or another device: it is solved again.
    Outdated,
    /// An earlier run has saved it, and its files are not what was written: it is solved again.
    Damaged,
}

/// What somebody should know of, though nothing has failed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Warning {
    /// A file of token ids has less than was asked for.
    FewerTokens {
        /// The file.
        file: PathBuf,
        /// How many it has.
        found: usize,
        /// How many were asked for.
        wanted: usize,
        /// Of what.
        what: &'static str,
    },
    /// A text yields fewer calibration samples than were asked for.
    FewerSamples {
        /// The text.
        origin: String,
        /// Samples that it yields.
        found: usize,
        /// Samples that were asked for.
        wanted: usize,
    },
    /// Evaluation windows are longer than the model's context.
    LongWindows {
        /// Tokens of a window.
        sequence: usize,
        /// Tokens that the model was made for.
        context: usize,
    },
    /// Calibration samples are longer than the model's context.
    LongSamples {
        /// Tokens of a sample.
        sequence: usize,
        /// Tokens that the model was made for.
        context: usize,
    },
    /// A chat model is calibrated on text that is read alone, for there is not the memory for it to write.
    WritesNothing {
        /// Bytes that its weights and its cache take while it writes.
        needed: u64,
        /// Bytes that it may use.
        allowed: u64,
    },
    /// A recipe says how its model was healed, which a conversion does not do.
    NotHealed,
    /// Something is odd about the tokenizer.
    Tokenizer(
        /// What.
        String,
    ),
    /// A file beside the original's weights is not taken along.
    LeftOut {
        /// Its name.
        file: String,
        /// Why.
        problem: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::FewerTokens {
                file,
                found,
                wanted,
                what,
            } => write!(
                f,
                "{} has {found} {what} where {wanted} were asked for; all are used",
                file.display()
            ),
            Self::FewerSamples { origin, found, wanted } => write!(
                f,
                "{origin} yields {found} calibration samples where {wanted} were asked for"
            ),
            Self::LongWindows { sequence, context } => write!(
                f,
                "windows of {sequence} tokens are longer than the model's context of {context}: perplexity will suffer"
            ),
            Self::LongSamples { sequence, context } => write!(
                f,
                "calibration samples of {sequence} tokens are longer than the model's context of {context}: it is fitted to what \
                 it does where it was never meant to be"
            ),
            Self::WritesNothing { needed, allowed } => write!(
                f,
                "the model has a chat template, but does not write chats to be calibrated on: that takes {:.1} GiB of memory, and \
                 {:.1} GiB may be used; chats will lose more than other text",
                gibibytes(*needed),
                gibibytes(*allowed)
            ),
            Self::NotHealed => f.write_str(
                "the recipe is that of a model that was healed after its conversion; this is the conversion alone: heal what it \
                 makes with `transmla heal`",
            ),
            Self::Tokenizer(remark) => f.write_str(remark),
            Self::LeftOut { file, problem } => write!(f, "{file} of the original is left out: {problem}"),
        }
    }
}

fn gibibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

/// Hears of the progress of a conversion.
pub trait Observer {
    /// A stage begins.
    fn begin(&mut self, stage: Stage);

    /// `done` of `total` units of the stage's work are done.
    fn advance(&mut self, done: u64, total: u64);

    /// A stage is done; evaluations have a perplexity.
    fn end(&mut self, stage: Stage, perplexity: Option<f64>);

    /// Something that somebody should know of.
    fn warning(&mut self, _warning: &Warning) {}

    /// A text was read: so many sequences of so many tokens, from there.
    fn text(&mut self, _purpose: TextPurpose, _sequences: usize, _tokens: usize, _origin: &str) {}

    /// Work on a layer of so many begins, in a stage that goes through them one after another.
    fn layer(&mut self, _layer: usize, _layers: usize) {}

    /// A layer is solved, or taken over from an earlier run; what was measured there, of one of the models that
    /// [`Self::converting`] named last, by its place among them.
    fn layer_done(&mut self, _model: usize, _report: &LayerReport) {}

    /// An earlier run has left layers at the place of a model, by its index, the first `saved` of them from the same start: this
    /// run will take those over, unless they turn out to be damaged. Told before the work begins.
    fn found_layers(&mut self, _model: usize, _saved: usize, _layers: usize) {}

    /// A step of refinement began at a layer, at this squared error of the residual stream relative to what the original's
    /// attention adds to it.
    fn refining(&mut self, _layer: usize, _error: f64) {}

    /// What becomes of a layer in the resume cache.
    fn saved_layer(&mut self, _layer: usize, _state: SavedLayer) {}

    /// `done` of `total` parts of a stage's work are kept on disk: a run that goes on does not do them again.
    fn saved_part(&mut self, _stage: Stage, _done: u64, _total: u64) {}

    /// A stage goes on where an earlier run was, with so many of its parts done.
    fn resumed(&mut self, _stage: Stage, _done: u64, _total: u64) {}

    /// A layer was solved, of one of the models that [`Self::converting`] named last, by its place among them.
    fn solved(&mut self, _model: usize, _figures: &LayerFigures) {}

    /// A model that is kept is written and measured; gives more files for its folder, as name and contents, which are listed
    /// with its own.
    fn finished(&mut self, _finished: &Finished<'_>) -> Vec<(String, Vec<u8>)> {
        Vec::new()
    }

    /// The stages that follow are of these of a sweep's models, by index.
    fn converting(&mut self, _models: &[usize]) {}

    /// A step of a healing is done.
    fn heal_step(&mut self, _step: &HealStep) {}

    /// The held-out text was looked at, and whether it was never predicted better.
    fn heal_check(&mut self, _check: &HealCheck, _best: bool) {}

    /// The state of a healing after so many steps of so many is on disk.
    fn heal_saved(&mut self, _done: usize, _steps: usize) {}

    /// A healing goes on where an earlier run was.
    fn heal_resumed(&mut self, _done: usize, _steps: usize) {}

    /// One of a sweep's models is done.
    fn converted(&mut self, _model: usize, _report: &Report) {}
}

/// The steps of an evaluation as those of the stage that it is.
pub(crate) struct EvaluationSteps<'a>(pub &'a mut dyn Observer);

impl transmla_eval::Observer for EvaluationSteps<'_> {
    fn advance(&mut self, done: u64, total: u64) {
        self.0.advance(done, total);
    }
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begin(&mut self, _: Stage) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
}

/// What was measured at one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerReport {
    /// The layer.
    pub layer: usize,
    /// What keys without position were divided by before the joint PCA.
    pub balance_ratio: f64,
    /// Share of the balanced keys' and values' energy that the latent keeps, 0 to 1.
    pub kept_energy: f64,
    /// Squared error of keys that are normalised in the original and fitted here, relative to their power, on the
    /// calibration text.
    pub key_error: Option<f64>,
    /// Squared error of the residual stream behind this attention on held-out calibration text, relative to what the
    /// original's attention adds to it (coherent method).
    pub output_error: Option<f64>,
    /// Distance of the residual stream behind this attention to the original's on held-out calibration text, relative to the
    /// length of the original's, root mean square over tokens: 0.04 is 4 % off. What earlier layers lost is in it (coherent
    /// method).
    pub stream_error: Option<f64>,
}

/// The result of a conversion.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Report {
    /// Perplexity of the original model, if evaluated.
    pub original: Option<Perplexity>,
    /// Perplexity after RoPE decoupling, if evaluated.
    pub partial_rope: Option<Perplexity>,
    /// Perplexity of the written model, if evaluated.
    pub mla: Option<Perplexity>,
    /// The frequency folding used (published method).
    pub freqfold: Option<usize>,
    /// Perplexity on held-out calibration text of each freqfold that `auto` tried.
    pub freqfold_trials: Vec<(usize, f64)>,
    /// Each layer's figures.
    pub layers: Vec<LayerReport>,
    /// Accuracy of the original on tasks, against that of the written model, if any were asked.
    pub tasks: Vec<TaskRow>,
}

/// A model whose files are written and measured, before its folder takes its place.
#[derive(Debug, Clone, Copy)]
pub struct Finished<'a> {
    /// What was done.
    pub plan: &'a Plan,
    /// The original.
    pub source: &'a Decoder,
    /// Where the files are for now: safetensors, also where they will be one GGUF file.
    pub folder: &'a Path,
    /// What was measured.
    pub report: &'a Report,
}
