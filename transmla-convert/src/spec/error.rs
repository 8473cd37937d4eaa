//! The errors of this crate.
//!
//! Settings are named as in `transmla.toml`: `style = "auto"`.

use std::path::PathBuf;

use transmla_calib::CalibError;
use transmla_core::{CheckpointError, CoreError};
use transmla_eval::EvalError;
use transmla_eval::tasks::TaskError;
use transmla_lowrank::LowRankError;
use transmla_rope::RopeError;

use crate::spec::healing::HealingError;
use crate::spec::hint::Hint;
use crate::spec::options::Engine;
use crate::spec::purpose::TextPurpose;
use crate::spec::recipe::RecipeError;

/// A name that is no text.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{problem}")]
pub struct TextNameError {
    problem: String,
}

impl TextNameError {
    pub(crate) fn new(problem: impl Into<String>) -> Self {
        Self {
            problem: problem.into(),
        }
    }
}

/// What can go wrong in a conversion.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConvertError {
    /// Reading or writing a checkpoint failed.
    #[error(transparent)]
    Core(#[from] CoreError),
    /// Calibration data cannot be used.
    #[error(transparent)]
    Calib(#[from] CalibError),
    /// An evaluation failed.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// Tasks cannot be asked.
    #[error(transparent)]
    Tasks(#[from] TaskError),
    /// Decoupling RoPE in a layer failed.
    #[error("layer {layer}: {source}")]
    Rope {
        /// The layer.
        layer: usize,
        /// What failed.
        source: RopeError,
    },
    /// The low-rank step of a layer failed.
    #[error("layer {layer}: {source}")]
    LowRank {
        /// The layer.
        layer: usize,
        /// What failed.
        source: LowRankError,
    },
    /// An option's value does not fit the model.
    #[error("{0}")]
    Option(Hint),
    /// A folder that is to be replaced holds what no conversion has written.
    #[error(
        "{} cannot be replaced: {problem}; only what a conversion has written is replaced: move the rest away, or choose \
         another folder",
        folder.display()
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        problem: String,
    },
    /// A folder is not that of a model that a conversion has written and finished.
    #[error(
        "{} is no finished model of a conversion: {problem}; convert it again, or name another folder",
        folder.display()
    )]
    Unfinished {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no room for the model.
    #[error(
        "{} has room for {}, and the conversion needs {}; free some, or choose another folder",
        folder.display(),
        mebibytes(*free),
        mebibytes(*needed)
    )]
    Space {
        /// Where it would be written.
        folder: PathBuf,
        /// Bytes that it takes.
        needed: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The model has latent attention already.
    #[error("the model already has latent attention (model_type {model_type}); give a grouped-query model")]
    AlreadyLatent {
        /// Its `model_type`.
        model_type: String,
    },
    /// The model has no latent attention.
    #[error("the model has no latent attention (model_type {model_type}); give a converted model")]
    NotLatent {
        /// Its `model_type`.
        model_type: String,
    },
    /// An option of a healing is out of its range.
    #[error(transparent)]
    Healing(#[from] HealingError),
    /// A converted model and an original do not belong together.
    #[error("the converted model is not one of this original: {problem}; give the model that it was converted from")]
    Pair {
        /// What does not fit.
        problem: String,
    },
    /// The model cannot be written as GGUF.
    #[error("cannot be written as GGUF: {problem}")]
    Gguf {
        /// What is in the way.
        problem: String,
    },
    /// The model cannot be written in stock DeepSeek form.
    #[error(
        "style = \"deepseek-v3\" cannot express this conversion: {obstacle}; style = \"auto\" writes the family's own class \
         instead"
    )]
    Style {
        /// The feature in the way.
        obstacle: String,
    },
    /// The program that is to run the model cannot.
    #[error("target = \"{engine}\" cannot run this conversion: {problem}; {advice}")]
    Engine {
        /// The program.
        engine: Engine,
        /// What is in the way.
        problem: String,
        /// What to do about it.
        advice: String,
    },
    /// Something failed on the way to something else.
    #[error("{doing}")]
    Doing {
        /// What could not be done.
        doing: String,
        /// What failed.
        source: Box<ConvertError>,
    },
    /// A text cannot be had or used.
    #[error("{source}")]
    ReadText {
        /// What it is for.
        purpose: TextPurpose,
        /// What failed.
        source: Box<ConvertError>,
    },
    /// The tokenizer that a dataset needs cannot be used.
    #[error(transparent)]
    Tokenizer(CalibError),
    /// A name that is no text.
    #[error(transparent)]
    TextName(#[from] TextNameError),
    /// A recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Recipes that cannot be run together.
    #[error("not a sweep: {0}")]
    Sweep(
        /// Why.
        &'static str,
    ),
    /// Sequences are too long: neither memory nor time would do, and no model was made for them.
    #[error(
        "sequences of {sequence} tokens are too long for a model with a context of {context}; use at most {longest} tokens \
         in a row"
    )]
    LongSequences {
        /// Tokens of a sequence.
        sequence: usize,
        /// Tokens that the model was made for.
        context: usize,
        /// Tokens that are possible.
        longest: usize,
    },
    /// What is to be written cannot be told in the form of its file.
    #[error("cannot write {file}: {source}")]
    Encode {
        /// The file.
        file: &'static str,
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// There are too few calibration samples.
    #[error("{found} calibration sample(s), at least {needed} are needed: {why}")]
    FewSamples {
        /// Number of samples.
        found: usize,
        /// Number that would do.
        needed: usize,
        /// What they are needed for.
        why: &'static str,
    },
    /// The activations of the model are not finite.
    #[error("layer {layer}: its inputs on the calibration text are not finite: the weights are damaged or overflow")]
    Activations {
        /// The layer.
        layer: usize,
    },
}

/// For people.
fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

impl ConvertError {
    pub(crate) fn doing<E: Into<Self>>(doing: String) -> impl FnOnce(E) -> Self {
        move |error| Self::Doing {
            doing,
            source: Box::new(error.into()),
        }
    }

    pub(crate) fn encode<E: Into<Box<dyn std::error::Error + Send + Sync>>>(file: &'static str) -> impl Fn(E) -> Self {
        move |error| Self::Encode {
            file,
            source: error.into(),
        }
    }

    pub(crate) fn of_text(purpose: TextPurpose) -> impl FnOnce(Self) -> Self {
        move |error| Self::ReadText {
            purpose,
            source: Box::new(error),
        }
    }

    pub(crate) fn rope(layer: usize) -> impl Fn(RopeError) -> Self {
        move |source| Self::Rope { layer, source }
    }

    pub(crate) fn lowrank(layer: usize) -> impl Fn(LowRankError) -> Self {
        move |source| Self::LowRank { layer, source }
    }
}

impl From<CheckpointError> for ConvertError {
    fn from(error: CheckpointError) -> Self {
        CoreError::from(error).into()
    }
}
