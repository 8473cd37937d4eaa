//! The texts of a conversion: what it is calibrated and evaluated on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use transmla_calib::{SampleSpec, TextTokenizer};
use transmla_convert::Recipe;
use transmla_core::ModelConfig;

use crate::printer::Printer;
use crate::text::{Corpus, TextSource, default_window, warn_of_long_windows};

/// Published number of samples and tokens per sample.
const SAMPLES: (usize, usize) = (128, 256);

/// What is known of the texts before any is read.
#[derive(Debug, Clone)]
pub struct TextPlan {
    calibration: Source,
    /// Number of samples and tokens per sample.
    pub samples: (usize, usize),
    seed: u64,
    evaluation: Option<WindowPlan>,
}

#[derive(Debug, Clone)]
struct WindowPlan {
    source: Source,
    sequence: Option<usize>,
    /// Why the windows are not of the published length.
    remark: &'static str,
    most: Option<usize>,
}

#[derive(Debug, Clone)]
enum Source {
    Dataset(TextSource),
    Tokens(PathBuf),
}

/// The texts as token ids.
#[derive(Debug)]
pub struct Texts {
    /// Calibration samples.
    pub calibration: Corpus,
    /// Evaluation windows, if there is an evaluation.
    pub evaluation: Option<Corpus>,
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dataset(dataset) => dataset.fmt(f),
            Self::Tokens(file) => file.display().fmt(f),
        }
    }
}

impl TextPlan {
    /// What a recipe says about texts, completed from the model.
    pub fn new(recipe: &Recipe, config: &ModelConfig) -> anyhow::Result<Self> {
        let (calibration, evaluation) = (&recipe.calibration, &recipe.evaluation);
        let dataset = |option: &str, name: &str| {
            let parsed = name.parse::<TextSource>().map_err(anyhow::Error::msg);
            parsed.with_context(|| format!("{option} {name} cannot be used"))
        };
        let source = match &calibration.cal_tokens {
            Some(file) => Source::Tokens(file.clone()),
            None => Source::Dataset(dataset("--cal-dataset", &calibration.cal_dataset)?),
        };
        let windows = || {
            let name = evaluation.eval_dataset.as_ref().unwrap_or(&calibration.cal_dataset);
            let (source, (sequence, remark)) = match &evaluation.eval_tokens {
                Some(file) => (Source::Tokens(file.clone()), (evaluation.eval_seqlen, "")),
                None => {
                    let (sequence, remark) = match evaluation.eval_seqlen {
                        Some(given) => (given, ""),
                        None => default_window(config),
                    };
                    (Source::Dataset(dataset("--eval-dataset", name)?), (Some(sequence), remark))
                }
            };
            anyhow::Ok(WindowPlan {
                source,
                sequence,
                remark,
                most: evaluation.eval_max_windows,
            })
        };
        Ok(Self {
            calibration: source,
            samples: (
                calibration.cal_nsamples.unwrap_or(SAMPLES.0),
                calibration.cal_max_seqlen.unwrap_or(SAMPLES.1),
            ),
            seed: calibration.seed,
            evaluation: (evaluation.ppl_eval_batch_size > 0).then(windows).transpose()?,
        })
    }

    /// One line on the calibration text.
    pub fn describe_calibration(&self) -> String {
        match &self.calibration {
            Source::Dataset(dataset) => format!("{} samples of {} tokens, {dataset}", self.samples.0, self.samples.1),
            Source::Tokens(file) => format!("token ids of {}", file.display()),
        }
    }

    /// One line on the evaluation text.
    pub fn describe_evaluation(&self) -> String {
        let Some(windows) = &self.evaluation else {
            return "none".into();
        };
        let most = windows.most.map_or_else(String::new, |most| format!("at most {most} "));
        match (&windows.source, windows.sequence) {
            (Source::Dataset(dataset), Some(sequence)) => {
                format!("{most}windows of {sequence} tokens{}, {dataset}", windows.remark)
            }
            (source, _) => format!("token ids of {source}"),
        }
    }

    /// Reads and tokenises the texts.
    pub fn read(&self, folder: &Path, config: &ModelConfig, printer: &Printer) -> anyhow::Result<Texts> {
        let needs = |source: &Source| matches!(source, Source::Dataset(_));
        let tokenizer = match needs(&self.calibration) || self.evaluation.as_ref().is_some_and(|w| needs(&w.source)) {
            true => Some(TextTokenizer::from_folder(folder).context(
                "datasets need the model's tokenizer; without one give --cal-tokens and --eval-tokens, \
                 or --ppl-eval-batch-size 0 for no evaluation",
            )?),
            false => None,
        };
        let calibration = match (&self.calibration, &tokenizer) {
            (Source::Dataset(dataset), Some(tokenizer)) => {
                let spec = SampleSpec {
                    samples: self.samples.0,
                    sequence: self.samples.1,
                    seed: self.seed,
                };
                Corpus::samples(dataset, &spec, tokenizer, config, printer).context(
                    "no calibration text; give another --cal-dataset (a file or folder will do), or --cal-tokens",
                )?
            }
            (source, _) => read_tokens(source, None, None, config, printer)?,
        };
        let evaluation = match &self.evaluation {
            None => None,
            Some(windows) => Some(windows.read(tokenizer.as_ref(), config, printer)?),
        };
        Ok(Texts {
            calibration,
            evaluation,
        })
    }
}
