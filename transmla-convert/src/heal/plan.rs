//! A healing from two folders and options.

use std::path::{Path, PathBuf};

use transmla_calib::ReadOptions;
use transmla_core::checkpoint::Claim;
use transmla_core::{Checkpoint, Decoder, LayeredModel, ModelConfig, Residency};

use crate::heal::pair::{check_configs, check_embeddings};
use crate::heal::request::{HealRequest, Words};
use crate::heal::run::heal;
use crate::heal::size::peak_bytes;
use crate::heal::written::recipe;
use crate::memory::{weight_bytes, writing_share};
use crate::output::manifest::RECIPE_FILE;
use crate::output::names::{bare_origin, written};
use crate::own_text::{NamedFile, OwnText};
use crate::setup::Setup;
use crate::solve::work::{LayerShape, Work, head};
use crate::spec::error::ConvertError;
use crate::spec::healing::{Healing, Trained};
use crate::spec::healing_report::HealReport;
use crate::spec::recipe::{EvaluationText, Recipe};
use crate::spec::report::Observer;
use crate::text::corpus::{Corpus, TextReader};
use crate::text::default_text::{TextDefaults, can_chat, default_text};
use crate::text::plan::{LazyTokenizer, TextPlan};

/// Tokens of a sequence where they are not given.
const SEQUENCE: usize = 512;

/// A healing of a converted model, before anything was looked at.
///
/// ```no_run
/// use transmla_convert::{Heal, Healing, Setup, Silent};
///
/// let heal = Heal { healing: Healing::default(), converted: "converted".into(), original: "model".into() };
/// let planned = heal.plan(Setup::default(), &mut Silent)?;
/// let report = planned.run("healed".as_ref(), &mut Silent)?;
/// assert!(report.written.kl <= report.before().kl);
/// # Ok::<(), transmla_convert::ConvertError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Heal {
    /// How.
    pub healing: Healing,
    /// The folder of the converted model.
    pub converted: PathBuf,
    /// The folder of its original.
    pub original: PathBuf,
}

/// A healing that is known to fit its models.
#[derive(Debug)]
pub struct PlannedHeal {
    heal: Heal,
    setup: Setup,
    /// Streamed, as they were looked at.
    converted: Decoder,
    original: Decoder,
    /// With the text, by which datasets are read and written files name them.
    recipe: Recipe,
    text: TextPlan,
}

/// The arithmetic of a healing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HealWork {
    /// Of a step: the original, where it is run, and the model forwards and backwards.
    pub step: Work,
    /// Of a look at the held-out text.
    pub check: Work,
    /// Of the original's logits before the training, if they are kept on disk.
    pub teach: Work,
    /// Number of steps.
    pub steps: usize,
    /// Looks at the held-out text, the first and that at the written files included.
    pub checks: usize,
}

impl HealWork {
    /// All of it.
    pub fn total(&self) -> Work {
        self.teach + self.step * self.steps as f64 + self.check * self.checks as f64
    }
}

impl Heal {
    /// Opens both models and checks that they belong together; reads no dataset. What the options left to the models is
    /// completed.
    ///
    /// # Errors
    /// Options out of their range; models that cannot be read, are not of their kinds, or do not belong together; text that
    /// cannot be used.
    pub fn plan(mut self, setup: Setup, observer: &mut dyn Observer) -> Result<PlannedHeal, ConvertError> {
        self.healing.check()?;
        let configs = [&self.converted, &self.original].map(|folder| ModelConfig::read(folder));
        let [converted, original] = configs;
        let (converted, original) = (converted?, original?);
        check_configs(&converted, &original)?;
        let open = |folder: &Path, config: &ModelConfig| open(&setup, folder, config, Residency::Streamed);
        let converted = open(&self.converted, &converted)?;
        let original = open(&self.original, &original)?;
        check_embeddings(&converted, &original)?;
        self.complete();
        let writes = can_chat(&self.original) && weight_bytes(original.config()) <= setup.writing_memory();
        let recipe = Recipe {
            model_path: self.original.to_string_lossy().into_owned(),
            calibration: self.healing.text.clone(),
            evaluation: EvaluationText {
                ppl_eval_batch_size: 0,
                ..EvaluationText::default()
            },
            ..Recipe::default()
        };
        let defaults = TextDefaults {
            calibration: &default_text(writes),
            noise: 0.0,
            locals: &setup.texts,
        };
        let text = TextPlan::new(&recipe, original.config(), &defaults, observer)?;
        let mut recipe = recipe;
        text.complete(&mut recipe);
        self.healing.text = recipe.calibration.clone();
        Ok(PlannedHeal {
            heal: self,
            setup,
            converted,
            original,
            recipe,
            text,
        })
    }

    /// As much text as the steps see, once.
    fn complete(&mut self) {
        let healing = &mut self.healing;
        if healing.text.cal_tokens.is_none() {
            healing.text.cal_max_seqlen.get_or_insert(SEQUENCE);
            let seen = (healing.steps * healing.batch_size) as f64 / (1.0 - healing.held_out);
            healing.text.cal_nsamples.get_or_insert((seen.ceil() as usize).max(2));
        }
    }
}

impl PlannedHeal {
    /// The options, with what they left to the models.
    pub fn healing(&self) -> &Healing {
        &self.heal.healing
    }

    /// The configuration of the model that is healed.
    pub fn config(&self) -> &ModelConfig {
        self.converted.config()
    }

    /// What it is trained on.
    pub fn text(&self) -> &TextPlan {
        &self.text
    }

    /// Bytes of the model's weights on disk.
    pub fn converted_bytes(&self) -> u64 {
        self.converted.checkpoint().total_bytes()
    }

    /// Whether both models' weights are kept in memory, which they are if they take at most half of what may be used.
    pub fn residency(&self) -> Residency {
        let both = weight_bytes(self.converted.config()) + weight_bytes(self.original.config());
        match both <= self.setup.writing_memory() / 2 {
            true => Residency::Loaded,
            false => Residency::Streamed,
        }
    }

    /// Estimated peak of memory in bytes.
    pub fn peak_bytes(&self) -> u64 {
        let (_, sequence) = self.text.calibration_shape();
        let kept = match self.residency() {
            Residency::Loaded => weight_bytes(self.converted.config()) + weight_bytes(self.original.config()),
            Residency::Streamed => 0,
        };
        peak_bytes(&self.converted, self.healing(), sequence, kept)
    }

    /// The arithmetic to come, without that of text that the original writes.
    pub fn work(&self) -> HealWork {
        let healing = self.healing();
        let (sequences, tokens) = self.text.calibration_shape();
        let of_model = |config: &ModelConfig, rows: f64| {
            let layers = config.num_hidden_layers as f64;
            LayerShape::of(config).forward(rows, tokens as f64) * layers + head(config, rows)
        };
        let (converted, original) = (self.converted.config(), self.original.config());
        let rows = (healing.batch_size * tokens) as f64;
        let layer = LayerShape::of(converted);
        let layers = converted.num_hidden_layers as f64;
        // Forwards once more, and back through every product: once for its input, once for its weights where they are trained.
        let mut back = layer.forward(rows, tokens as f64) * 2.0 + Work::product(rows, 1.0, layer.attention);
        if healing.train == Trained::All {
            back += layer.feed(rows);
        }
        // The kernel of attention goes back through twice as many products.
        back += layer.kernel(rows, tokens as f64);
        let logits = Work::product(rows, converted.hidden_size as f64, converted.vocab_size as f64);
        let held_out = (healing.held_out * sequences as f64).round().max(1.0) * tokens as f64;
        let taught = healing.teacher_top_k.is_some();
        let teacher = |rows: f64| {
            if taught {
                Work::default()
            } else {
                of_model(original, rows)
            }
        };
        HealWork {
            step: of_model(converted, rows) + back * layers + logits + teacher(rows),
            check: of_model(converted, held_out) + teacher(held_out),
            teach: match taught {
                true => of_model(original, (sequences * tokens) as f64),
                false => Work::default(),
            },
            steps: healing.steps,
            checks: healing.checks.min(healing.steps) + 2,
        }
    }

    /// Heals the model and writes it, with `transmla.toml` and `README.md`; see [`heal()`].
    ///
    /// # Errors
    /// Those of [`heal()`], and text that cannot be had.
    pub fn run(&self, save_path: &Path, observer: &mut dyn Observer) -> Result<HealReport, ConvertError> {
        let residency = self.residency();
        let open = |folder: &Path, model: &Decoder| match residency {
            Residency::Streamed => Ok(model.clone()),
            Residency::Loaded => open(&self.setup, folder, model.config(), residency),
        };
        let original = open(&self.heal.original, &self.original)?;
        let (text, own) = self.read_text(&original, save_path, observer)?;
        let converted = open(&self.heal.converted, &self.converted)?;
        let around = self.setup.surroundings();
        let named = written(&self.recipe, save_path, around);
        let words = Words {
            original: &around.model(&self.recipe.model_path).name,
            text: &bare_origin(&text.origin, &self.recipe, around),
        };
        let described = Healing {
            text: named.calibration,
            ..self.healing().clone()
        };
        let mut of_converted = recipe(&self.converted)?;
        of_converted.heal = Some(Box::new(described));
        let mut files = vec![(RECIPE_FILE.to_owned(), of_converted.to_toml()?.into_bytes())];
        files.extend(own);
        let request = HealRequest {
            converted: &converted,
            original: &original,
            text: &text.tokens,
            healing: self.healing(),
            save_path,
            replace: self.setup.replace,
            words,
            extra_files: &files,
        };
        heal(&request, observer)
    }

    /// The text, and the file of what the original wrote of it.
    fn read_text(
        &self,
        original: &Decoder,
        save_path: &Path,
        observer: &mut dyn Observer,
    ) -> Result<(Corpus, Option<NamedFile>), ConvertError> {
        let folder = &self.heal.original;
        let places = [save_path.to_path_buf()];
        let again = || Ok(original.clone());
        let (earlier, share) = (
            Some(self.heal.converted.as_path()),
            writing_share(self.setup.writing_memory()),
        );
        let mut author = OwnText::new(Some(original), &again, folder, &places, earlier, share);
        // Nobody else comes to this place while the original writes.
        let _claim = self.text.own_spec().map(|_| Claim::of(save_path)).transpose()?;
        let reader = self.text.reader(TextReader {
            config: original.config(),
            hub: &self.setup.hub,
            locals: &self.setup.texts,
            options: ReadOptions {
                column: None,
                chat_model: Some(folder),
            },
        });
        let mut tokenizer = LazyTokenizer::of(folder);
        let corpus = self
            .text
            .read_calibration(&mut tokenizer, &mut author, &reader, observer)?;
        Ok((corpus, author.take_file()))
    }
}

fn open(setup: &Setup, folder: &Path, config: &ModelConfig, residency: Residency) -> Result<Decoder, ConvertError> {
    let checkpoint = Checkpoint::open(folder)?;
    Ok(Decoder::new(config.clone(), checkpoint, &setup.device, residency)?)
}
