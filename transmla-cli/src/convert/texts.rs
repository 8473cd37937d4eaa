//! The texts of a conversion: what it is calibrated and evaluated on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use transmla_calib::{SampleSpec, TextTokenizer};
use transmla_convert::{Recipe, default_noise};
use transmla_core::ModelConfig;

use crate::mix::TextMix;
use crate::printer::{Hint, Printer};
use crate::table;
use crate::text::source::TextSource;
use crate::text::{Corpus, check_length, default_window, read_tokenizer, warn_of_long_windows};

/// Published number of calibration samples.
const SAMPLES: usize = 128;

/// Published number of tokens of a sample.
const SAMPLE_TOKENS: usize = 256;

/// The texts as far as they are known before a dataset is read: token files are read, datasets are not.
#[derive(Debug)]
pub struct TextPlan {
    calibration: Source,
    spec: SampleSpec,
    /// Share of the samples with random words.
    noise: f64,
    /// The column that is the text, if one was given.
    column: Option<String>,
    evaluation: Option<WindowPlan>,
}

#[derive(Debug)]
struct WindowPlan {
    source: Source,
    sequence: usize,
    /// Why windows are not of the published length.
    remark: &'static str,
    most: Option<usize>,
}

#[derive(Debug)]
enum Source {
    Dataset(TextMix),
    Ids(Corpus),
}

/// The texts as token ids.
#[derive(Debug)]
pub struct Texts {
    /// Calibration samples.
    pub calibration: Corpus,
    /// Evaluation windows, if there is an evaluation.
    pub evaluation: Option<Corpus>,
}

impl Source {
    fn dataset(option: &str, name: &str) -> anyhow::Result<Self> {
        let parsed = name.parse().map_err(anyhow::Error::msg);
        parsed
            .map(Self::Dataset)
            .with_context(|| format!("cannot use {option} {name}"))
    }

    /// Only the first text of a mix.
    fn first(self) -> Self {
        match self {
            Self::Dataset(mix) => Self::Dataset(TextMix::from(TextSource::clone(mix.first()))),
            ids => ids,
        }
    }
}

impl TextPlan {
    /// What a recipe says about texts, completed from the model.
    ///
    /// # Errors
    /// A token file that cannot be read or does not fit the model.
    pub fn new(recipe: &Recipe, config: &ModelConfig, printer: &Printer) -> anyhow::Result<Self> {
        let text = &recipe.calibration;
        let calibration = match &text.cal_tokens {
            Some(file) => {
                let (samples, tokens) = (text.cal_nsamples, text.cal_max_seqlen);
                Source::Ids(Corpus::from_file(file, samples, tokens, config, printer)?)
            }
            None => Source::dataset("--cal-dataset", &text.cal_dataset)?,
        };
        let (samples, sequence) = match &calibration {
            Source::Ids(corpus) => (corpus.tokens.batch(), corpus.tokens.sequence()),
            Source::Dataset(_) => {
                let sequence = text.cal_max_seqlen.unwrap_or(SAMPLE_TOKENS);
                (text.cal_nsamples.unwrap_or(SAMPLES), sequence)
            }
        };
        check_length(sequence, config).context("cannot calibrate on these samples")?;
        let noise = match &calibration {
            Source::Ids(_) => 0.0,
            Source::Dataset(_) => text.cal_noise.unwrap_or_else(|| default_noise(recipe.method)),
        };
        let evaluated = recipe.evaluation.ppl_eval_batch_size > 0;
        let evaluation = evaluated
            .then(|| WindowPlan::new(recipe, config, printer))
            .transpose()?;
        Ok(Self {
            calibration,
            spec: SampleSpec {
                samples,
                sequence,
                seed: text.seed,
            },
            noise,
            column: text.text_column.clone(),
            evaluation,
        })
    }

    /// Number of calibration samples, and tokens of each.
    pub fn calibration_shape(&self) -> (usize, usize) {
        (self.spec.samples, self.spec.sequence)
    }

    /// Tokens of an evaluation window, if there is an evaluation.
    pub fn window_tokens(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|windows| windows.sequence)
    }

    /// One line on the calibration text.
    pub fn describe_calibration(&self) -> String {
        let shape = format!("{} x {} tokens", self.spec.samples, self.spec.sequence);
        match &self.calibration {
            Source::Dataset(dataset) => {
                let noise = match self.noise > 0.0 {
                    true => format!("random words in {} % of them, ", (1000.0 * self.noise).round() / 10.0),
                    false => String::new(),
                };
                format!("{shape} of {dataset}, {noise}seed {}", self.spec.seed)
            }
            Source::Ids(corpus) => format!("{shape} of {}", corpus.origin),
        }
    }

    /// One line on the evaluation text.
    pub fn describe_evaluation(&self) -> String {
        let Some(windows) = &self.evaluation else {
            return "none".into();
        };
        let (sequence, remark) = (windows.sequence, windows.remark);
        match (&windows.source, windows.most) {
            (Source::Ids(corpus), _) => format!("{} x {sequence} tokens of {}", corpus.tokens.batch(), corpus.origin),
            (Source::Dataset(dataset), None) => format!("windows of {sequence} tokens{remark} of {dataset}"),
            (Source::Dataset(dataset), Some(most)) => {
                let windows = table::plural(most, "window");
                format!("at most {windows} of {sequence} tokens{remark} of {dataset}")
            }
        }
    }

    /// Writes into a recipe what it left to the model and to token files.
    pub fn complete(&self, recipe: &mut Recipe) {
        recipe.calibration.cal_nsamples = Some(self.spec.samples);
        recipe.calibration.cal_max_seqlen = Some(self.spec.sequence);
        if matches!(self.calibration, Source::Dataset(_)) {
            recipe.calibration.cal_noise = Some(self.noise);
        }
        if let Some(windows) = &self.evaluation {
            recipe.evaluation.eval_seqlen = Some(windows.sequence);
        }
    }

    /// Reads and tokenises the datasets.
    ///
    /// # Errors
    /// A dataset that cannot be had or is too short, no tokenizer, ids that the model does not have.
    pub fn read(self, folder: &Path, config: &ModelConfig, printer: &Printer) -> anyhow::Result<Texts> {
        let mut tokenizer = LazyTokenizer::of(folder);
        let calibration = self.read_samples(&mut tokenizer, config, printer)?;
        let (windows, column) = (self.evaluation, self.column.as_deref());
        let evaluation = windows.map(|windows| windows.read(column, &mut tokenizer, config, printer));
        Ok(Texts {
            calibration,
            evaluation: evaluation.transpose()?,
        })
    }

    /// Reads and tokenises the calibration text alone.
    ///
    /// # Errors
    /// As for [`Self::read`].
    pub fn read_calibration(&self, folder: &Path, config: &ModelConfig, printer: &Printer) -> anyhow::Result<Corpus> {
        self.read_samples(&mut LazyTokenizer::of(folder), config, printer)
    }

    fn read_samples(
        &self,
        tokenizer: &mut LazyTokenizer,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Corpus> {
        let calibration = match &self.calibration {
            Source::Ids(corpus) => corpus.clone(),
            Source::Dataset(dataset) => {
                let (column, tokenizer) = (self.column.as_deref(), tokenizer.get(printer)?);
                Corpus::samples(dataset, column, &self.spec, self.noise, tokenizer, config, printer).context(Hint(
                    "give another --cal-dataset (a file or folder will do) or --cal-tokens",
                ))?
            }
        };
        printer.note(describe("Calibration text", &calibration));
        Ok(calibration)
    }
}

impl WindowPlan {
    fn read(
        self,
        column: Option<&str>,
        tokenizer: &mut LazyTokenizer,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Corpus> {
        let evaluation = match self.source {
            Source::Ids(corpus) => corpus,
            Source::Dataset(dataset) => {
                let (sequence, most) = (self.sequence, self.most);
                let (text, tokenizer) = (dataset.first(), tokenizer.get(printer)?);
                Corpus::windows(text, column, sequence, most, tokenizer, config, printer).context(Hint(
                    "give another --eval-dataset (a file or folder will do) or --eval-tokens, \
                     or --ppl-eval-batch-size 0 for no evaluation",
                ))?
            }
        };
        printer.note(describe("Evaluation text", &evaluation));
        Ok(evaluation)
    }

    fn new(recipe: &Recipe, config: &ModelConfig, printer: &Printer) -> anyhow::Result<Self> {
        let text = &recipe.evaluation;
        let most = text.eval_max_windows;
        let plan = match &text.eval_tokens {
            Some(file) => {
                let corpus = Corpus::from_file(file, most, text.eval_seqlen, config, printer)?;
                Self {
                    sequence: corpus.tokens.sequence(),
                    remark: "",
                    source: Source::Ids(corpus),
                    most,
                }
            }
            None => {
                let (sequence, remark) = text
                    .eval_seqlen
                    .map_or_else(|| default_window(config), |given| (given, ""));
                let source = match &text.eval_dataset {
                    Some(dataset) => Source::dataset("--eval-dataset", dataset)?,
                    None => Source::dataset("--cal-dataset", &recipe.calibration.cal_dataset)?,
                };
                Self {
                    source: source.first(),
                    sequence,
                    remark,
                    most,
                }
            }
        };
        check_length(plan.sequence, config).context("cannot evaluate on these windows")?;
        warn_of_long_windows(plan.sequence, config, printer);
        Ok(plan)
    }
}

/// A tokenizer that is read when first needed: token files need none.
struct LazyTokenizer {
    folder: PathBuf,
    loaded: Option<TextTokenizer>,
}

impl LazyTokenizer {
    fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            loaded: None,
        }
    }

    fn get(&mut self, printer: &Printer) -> anyhow::Result<&TextTokenizer> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => {
                let loaded = read_tokenizer(&self.folder, printer);
                loaded.context(Hint(
                    "datasets need the model's tokenizer; --cal-tokens and --eval-tokens do not",
                ))?
            }
        };
        Ok(self.loaded.insert(loaded))
    }
}

fn describe(what: &str, corpus: &Corpus) -> String {
    let (batch, sequence) = (corpus.tokens.batch(), corpus.tokens.sequence());
    format!("{what}: {batch} x {sequence} tokens of {}", corpus.origin)
}
