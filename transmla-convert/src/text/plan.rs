//! The texts of a conversion by recipe: what it is calibrated and evaluated on.

use std::path::{Path, PathBuf};

use transmla_calib::{DatasetSource, ReadOptions, SampleSpec, TextTokenizer};
use transmla_core::{ModelConfig, TokenBatch};
use transmla_eval::EvalError;

use crate::spec::error::ConvertError;
use crate::spec::purpose::TextPurpose;
use crate::spec::recipe::Recipe;
use crate::spec::report::{Observer, Warning};
use crate::text::corpus::{Corpus, TextReader, check_length, default_window, read_tokenizer, warn_of_long_windows};
use crate::text::default_text::TextDefaults;
use crate::text::mix::TextMix;
use crate::text::source::{LocalText, TextSource};
use crate::text::written::{Author, describe_written};

/// Published number of calibration samples, which a mix has of each text on average.
const SAMPLES: usize = 128;

/// Published number of tokens of a sample.
const SAMPLE_TOKENS: usize = 256;

/// The texts as far as they are known before a dataset is read: token files are read, datasets are not.
#[derive(Debug, Clone)]
pub struct TextPlan {
    calibration: Source,
    spec: SampleSpec,
    /// Share of the samples with random words.
    noise: f64,
    /// The column that is the text, if one was given.
    column: Option<String>,
    evaluation: Option<WindowPlan>,
}

#[derive(Debug, Clone)]
struct WindowPlan {
    source: Source,
    sequence: usize,
    /// Why windows are not of the published length.
    remark: &'static str,
    most: Option<usize>,
}

#[derive(Debug, Clone)]
enum Source {
    Dataset(TextMix),
    Ids(Corpus),
}

impl Source {
    /// Texts that a field of the recipe names.
    fn dataset(field: &str, name: &str, locals: &[LocalText]) -> Result<Self, ConvertError> {
        Self::mix(field, name, locals).map(Self::Dataset)
    }

    fn mix(field: &str, name: &str, locals: &[LocalText]) -> Result<TextMix, ConvertError> {
        let parsed = TextMix::parse(name, locals);
        parsed.map_err(ConvertError::doing(format!("cannot use `{field}` {name}")))
    }
}

impl Source {
    /// The first text of those that a field of the recipe names, to measure on.
    fn measured(field: &str, name: &str, locals: &[LocalText]) -> Result<Self, ConvertError> {
        let cannot_use = || ConvertError::doing(format!("cannot use `{field}` {name}"));
        let mix = TextMix::parse(name, locals).map_err(|error| cannot_use()(ConvertError::from(error)))?;
        let first = &mix.parts()[0].0;
        let source = TextSource::parse_for_evaluation(&first.to_string(), locals);
        let source = source.map_err(|error| cannot_use()(ConvertError::from(error)))?;
        Ok(Self::Dataset(TextMix::from(source)))
    }
}

impl TextPlan {
    /// What a recipe says about texts, completed from the model and by defaults.
    ///
    /// # Errors
    /// A token file that cannot be read or does not fit the model.
    pub fn new(
        recipe: &Recipe,
        config: &ModelConfig,
        defaults: &TextDefaults<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self, ConvertError> {
        let (text, locals) = (&recipe.calibration, defaults.locals);
        let calibration = match &text.cal_tokens {
            Some(file) => {
                let (samples, tokens) = (text.cal_nsamples, text.cal_max_seqlen);
                Source::Ids(Corpus::from_file(file, samples, tokens, config, &mut warn(observer))?)
            }
            None => match &text.cal_dataset {
                Some(name) => Source::dataset("cal_dataset", name, locals)?,
                None => Source::Dataset(defaults.calibration.clone()),
            },
        };
        let (samples, sequence) = match &calibration {
            Source::Ids(corpus) => (corpus.tokens.batch(), corpus.tokens.sequence()),
            Source::Dataset(mix) => {
                let sequence = text.cal_max_seqlen.unwrap_or(SAMPLE_TOKENS);
                let samples = text.cal_nsamples.unwrap_or(SAMPLES * mix.parts().len());
                (samples, sequence)
            }
        };
        check_length(sequence, config).map_err(ConvertError::doing("cannot calibrate on these samples".into()))?;
        let context = config.max_position_embeddings;
        if sequence > context {
            observer.warning(&Warning::LongSamples { sequence, context });
        }
        let noise = match &calibration {
            Source::Ids(_) => 0.0,
            Source::Dataset(_) => text.cal_noise.unwrap_or(defaults.noise),
        };
        let evaluated = recipe.evaluation.ppl_eval_batch_size > 0;
        let evaluation = evaluated.then(|| WindowPlan::new(recipe, config, defaults, observer));
        Ok(Self {
            calibration,
            spec: SampleSpec {
                samples,
                sequence,
                seed: text.seed,
            },
            noise,
            column: text.text_column.clone(),
            evaluation: evaluation.transpose()?,
        })
    }

    /// Number of calibration samples, and tokens of each.
    pub fn calibration_shape(&self) -> (usize, usize) {
        (self.spec.samples, self.spec.sequence)
    }

    /// Number of calibration texts.
    pub(crate) fn texts(&self) -> usize {
        match &self.calibration {
            Source::Dataset(mix) => mix.parts().len(),
            Source::Ids(_) => 1,
        }
    }

    /// Tokens of an evaluation window, if there is an evaluation.
    pub fn window_tokens(&self) -> Option<usize> {
        self.evaluation.as_ref().map(|windows| windows.sequence)
    }

    /// Number of evaluation windows, where it is known before the text is read: those of a file of token ids, or the most that
    /// are taken of a longer text.
    pub fn windows(&self) -> Option<usize> {
        let windows = self.evaluation.as_ref()?;
        match &windows.source {
            Source::Ids(corpus) => Some(corpus.tokens.batch()),
            Source::Dataset(_) => windows.most,
        }
    }

    /// One line on the calibration text.
    pub fn describe_calibration(&self) -> String {
        let shape = format!("{} x {} tokens", self.spec.samples, self.spec.sequence);
        match &self.calibration {
            Source::Dataset(dataset) => {
                let share = (1000.0 * self.noise).round() / 10.0;
                let noise = match (dataset.measurable(), self.own_spec().is_some()) {
                    (Some(_), true) if self.noise > 0.0 => {
                        format!("random words in {share} % of those that are read, ")
                    }
                    (Some(_), false) if self.noise > 0.0 => format!("random words in {share} % of them, "),
                    _ => String::new(),
                };
                let own = match self.own_spec() {
                    Some(_) => " (self: written by the original)",
                    None => "",
                };
                format!("{shape} of {dataset}{own}, {noise}seed {}", self.spec.seed)
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
                let s = if most == 1 { "" } else { "s" };
                format!("at most {most} window{s} of {sequence} tokens{remark} of {dataset}")
            }
        }
    }

    /// Writes into a recipe what it left to the model and to token files.
    pub fn complete(&self, recipe: &mut Recipe) {
        recipe.calibration.cal_nsamples = Some(self.spec.samples);
        recipe.calibration.cal_max_seqlen = Some(self.spec.sequence);
        if let Source::Dataset(mix) = &self.calibration {
            recipe.calibration.cal_dataset = Some(mix.to_string());
            recipe.calibration.cal_noise = Some(self.noise);
        }
        if let Some(windows) = &self.evaluation {
            recipe.evaluation.eval_seqlen = Some(windows.sequence);
        }
    }

    /// What the original is to write of the calibration text, if anything.
    pub(crate) fn own_spec(&self) -> Option<SampleSpec> {
        let Source::Dataset(mix) = &self.calibration else {
            return None;
        };
        let samples = mix.own_samples(self.spec.samples).ok()?;
        (samples > 0).then_some(SampleSpec { samples, ..self.spec })
    }

    /// How its texts are read.
    pub(crate) fn reader<'a>(&'a self, reader: TextReader<'a>) -> TextReader<'a> {
        TextReader {
            options: ReadOptions {
                column: self.column.as_deref(),
                ..reader.options
            },
            ..reader
        }
    }

    /// Reads and tokenises the calibration text; what the original is to write of it, the author writes.
    ///
    /// # Errors
    /// A dataset that cannot be had or is too short, no tokenizer, ids that the model does not have; an author that fails.
    pub(crate) fn read_calibration(
        &self,
        tokenizer: &mut LazyTokenizer,
        author: &mut dyn Author,
        reader: &TextReader<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Corpus, ConvertError> {
        let corpus = match &self.calibration {
            Source::Ids(corpus) => corpus.clone(),
            Source::Dataset(dataset) => {
                let origin = describe_written(&tokenizer.folder);
                let tokenizer = tokenizer.get(observer)?;
                let of_text = || ConvertError::of_text(TextPurpose::Calibration);
                dataset
                    .divide(self.spec.samples)
                    .map_err(|error| of_text()(error.into()))?;
                let own = match self.own_spec() {
                    Some(spec) => Some(Corpus {
                        tokens: written(author, &spec, tokenizer, observer).map_err(of_text())?,
                        origin: origin.map_err(of_text())?.to_owned(),
                    }),
                    None => None,
                };
                let (own, mut warn) = (own.as_ref(), warn(observer));
                Corpus::samples(dataset, &self.spec, self.noise, own, tokenizer, reader, &mut warn).map_err(of_text())?
            }
        };
        tell(TextPurpose::Calibration, &corpus, observer);
        Ok(corpus)
    }

    /// Reads and tokenises the evaluation text, if there is an evaluation.
    ///
    /// # Errors
    /// As for [`Self::read_calibration`].
    pub(crate) fn read_evaluation(
        &self,
        tokenizer: &mut LazyTokenizer,
        reader: &TextReader<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Option<Corpus>, ConvertError> {
        let Some(windows) = &self.evaluation else {
            return Ok(None);
        };
        let corpus = match &windows.source {
            Source::Ids(corpus) => corpus.clone(),
            Source::Dataset(dataset) => {
                let tokenizer = tokenizer.get(observer)?;
                let source = measured(dataset);
                Corpus::windows(&source, windows.sequence, windows.most, tokenizer, reader)
                    .map_err(ConvertError::of_text(TextPurpose::Evaluation))?
            }
        };
        tell(TextPurpose::Evaluation, &corpus, observer);
        Ok(Some(corpus))
    }
}

impl WindowPlan {
    fn new(
        recipe: &Recipe,
        config: &ModelConfig,
        defaults: &TextDefaults<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self, ConvertError> {
        let (text, locals) = (&recipe.evaluation, defaults.locals);
        let most = text.eval_max_windows;
        let plan = match &text.eval_tokens {
            Some(file) => {
                let corpus = Corpus::from_file(file, most, text.eval_seqlen, config, &mut warn(observer))?;
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
                    Some(dataset) => Source::measured("eval_dataset", dataset, locals)?,
                    None => {
                        let mix = match &recipe.calibration.cal_dataset {
                            Some(name) => Source::mix("cal_dataset", name, locals)?,
                            None => defaults.calibration.clone(),
                        };
                        Source::Dataset(TextMix::from(measured(&mix)))
                    }
                };
                Self {
                    source,
                    sequence,
                    remark,
                    most,
                }
            }
        };
        if plan.sequence < 2 {
            return Err(EvalError::ShortWindow { found: plan.sequence }.into());
        }
        check_length(plan.sequence, config).map_err(ConvertError::doing("cannot evaluate on these windows".into()))?;
        warn_of_long_windows(plan.sequence, config, &mut warn(observer));
        Ok(plan)
    }
}

/// The text of a mix that is measured on.
fn measured(mix: &TextMix) -> TextSource {
    let published = || TextSource::Dataset(DatasetSource::Wikitext2);
    mix.measurable().cloned().unwrap_or_else(published)
}

fn written(
    author: &mut dyn Author,
    spec: &SampleSpec,
    tokenizer: &TextTokenizer,
    observer: &mut dyn Observer,
) -> Result<TokenBatch, ConvertError> {
    let written = author.write(spec, tokenizer, observer);
    written.map_err(ConvertError::doing(
        "cannot have the original write calibration text".into(),
    ))
}

/// A tokenizer that is read when first needed: token files need none.
pub(crate) struct LazyTokenizer {
    folder: PathBuf,
    loaded: Option<TextTokenizer>,
}

impl LazyTokenizer {
    /// That of a model's folder.
    pub(crate) fn of(folder: &Path) -> Self {
        Self {
            folder: folder.to_path_buf(),
            loaded: None,
        }
    }

    pub(crate) fn get(&mut self, observer: &mut dyn Observer) -> Result<&TextTokenizer, ConvertError> {
        let loaded = match self.loaded.take() {
            Some(loaded) => loaded,
            None => read_tokenizer(&self.folder, &mut warn(observer)).map_err(ConvertError::Tokenizer)?,
        };
        Ok(self.loaded.insert(loaded))
    }
}

fn warn(observer: &mut dyn Observer) -> impl FnMut(Warning) + use<'_> {
    |warning| observer.warning(&warning)
}

fn tell(purpose: TextPurpose, corpus: &Corpus, observer: &mut dyn Observer) {
    observer.text(purpose, corpus.tokens.batch(), corpus.tokens.sequence(), &corpus.origin);
}
