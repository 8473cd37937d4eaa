//! Several conversions of one model from recipes: what they have in common is done once.

use std::path::{Path, PathBuf};

use transmla_calib::ReadOptions;
use transmla_core::checkpoint::Companions;
use transmla_core::hub::model_folder;
use transmla_core::{Checkpoint, Decoder, ModelConfig, Residency};

use crate::execute::{Entry, Requests, convert_all};
use crate::memory::{conversion_bytes, eval_options, residency};
use crate::output::card::ModelCard;
use crate::output::gguf::check_gguf;
use crate::output::manifest::RECIPE_FILE;
use crate::output::names::{ModelName, bare_origin, written};
use crate::setup::Setup;
use crate::solve::evaluation::Evaluation;
use crate::solve::{default_noise, has_refinement};
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::recipe::{Recipe, RecipeError};
use crate::spec::report::{Observer, Report, Warning};
use crate::text::corpus::{Corpus, TextReader};
use crate::text::plan::{LazyTokenizer, TextPlan};

/// The contents of a file, and its name.
type NamedFile = (String, Vec<u8>);

/// Conversions of one model by several recipes.
#[derive(Debug, Clone)]
pub struct Sweep {
    recipes: Vec<Recipe>,
    places: Vec<PathBuf>,
    setup: Setup,
}

impl Sweep {
    /// Conversions by these recipes, each into a folder of its own.
    ///
    /// # Errors
    /// [`ConvertError::Recipe`] for a recipe that cannot be used; [`ConvertError::Sweep`] for none, and for recipes of several
    /// models or with different evaluations.
    pub fn new(models: Vec<(Recipe, PathBuf)>) -> Result<Self, ConvertError> {
        let (recipes, places): (Vec<Recipe>, Vec<PathBuf>) = models.into_iter().unzip();
        let Some(first) = recipes.first() else {
            return Err(ConvertError::Sweep("it has no recipe"));
        };
        for recipe in &recipes {
            recipe.check()?;
            if (&recipe.model_path, &recipe.revision) != (&first.model_path, &first.revision) {
                return Err(ConvertError::Sweep("its recipes are for different models"));
            }
            if recipe.evaluation != first.evaluation {
                return Err(ConvertError::Sweep("its recipes have different evaluations"));
            }
        }
        let setup = Setup::default();
        Ok(Self { recipes, places, setup })
    }

    /// The same in another setup.
    pub fn with(self, setup: Setup) -> Self {
        Self { setup, ..self }
    }

    /// Finds the model and plans; see [`Conversion::plan`](crate::Conversion::plan).
    ///
    /// # Errors
    /// As for [`Conversion::plan`](crate::Conversion::plan).
    pub fn plan(self, observer: &mut dyn Observer) -> Result<PlannedSweep, ConvertError> {
        let planned = plan_all(&self.setup, self.recipes, observer)?;
        Ok(PlannedSweep {
            places: self.places,
            ..planned
        })
    }
}

/// Conversions that are known to fit their model.
#[derive(Debug)]
pub struct PlannedSweep {
    setup: Setup,
    folder: PathBuf,
    config: ModelConfig,
    plans: Vec<Plan>,
    /// The texts of each plan.
    texts: Vec<TextPlan>,
    /// Nothing where there are no weights.
    source: Option<Decoder>,
    places: Vec<PathBuf>,
}

/// Plans conversions of one model, of which there is at least one.
pub(crate) fn plan_all(
    setup: &Setup,
    recipes: Vec<Recipe>,
    observer: &mut dyn Observer,
) -> Result<PlannedSweep, ConvertError> {
    let folder = match (&setup.model_folder, recipes.first()) {
        (Some(folder), _) => folder.clone(),
        (None, Some(first)) => model_folder(&first.model_path, &first.revision, &setup.hub)?,
        (None, None) => return Err(ConvertError::Sweep("it has no recipe")),
    };
    let config = ModelConfig::read(&folder)?;
    recipes.iter().try_for_each(check_refinement)?;
    let mut plans = recipes
        .iter()
        .map(|recipe| Plan::new(&config, recipe))
        .collect::<Result<Vec<_>, _>>()?;
    for plan in &plans {
        check_gguf(plan, &folder)?;
    }
    // Opening a model as streamed checks the headers and reads no weight.
    let source = has_weights(&folder)
        .then(|| open(setup, &folder, &config, Residency::Streamed))
        .transpose()?;
    let mut texts: Vec<TextPlan> = Vec::with_capacity(plans.len());
    for (index, recipe) in recipes.iter().enumerate() {
        let noise = default_noise(recipe.method);
        let same = recipes[..index]
            .iter()
            .position(|other| (&other.calibration, default_noise(other.method)) == (&recipe.calibration, noise));
        let text = match same {
            Some(known) => texts[known].clone(),
            None => TextPlan::new(recipe, &config, noise, &setup.texts, observer)?,
        };
        plans[index].complete(&|recipe| text.complete(recipe));
        texts.push(text);
    }
    Ok(PlannedSweep {
        setup: setup.clone(),
        folder,
        config,
        plans,
        texts,
        source,
        places: Vec::new(),
    })
}

/// Refuses refinement by a method that has none.
fn check_refinement(recipe: &Recipe) -> Result<(), RecipeError> {
    match recipe.refine {
        Some(steps) if steps > 0 && !has_refinement(recipe.method) => Err(RecipeError::Number {
            field: "refine",
            found: steps.to_string(),
            expected: "0, for the published method refines nothing",
        }),
        _ => Ok(()),
    }
}

impl PlannedSweep {
    /// What will be done, in the order of the recipes; the recipes of plans say all that the given ones left to the model.
    pub fn plans(&self) -> &[Plan] {
        &self.plans
    }

    pub(crate) fn texts(&self, index: usize) -> &TextPlan {
        &self.texts[index]
    }

    pub(crate) fn source_bytes(&self) -> Option<u64> {
        self.source.as_ref().map(|source| source.checkpoint().total_bytes())
    }

    pub(crate) fn residency(&self) -> Residency {
        residency(&self.config, self.setup.max_memory)
    }

    pub(crate) fn peak_bytes(&self, index: usize) -> u64 {
        conversion_bytes(&self.plans[index], &self.texts[index], self.residency())
    }

    /// Tokens of an evaluation window, if there is an evaluation.
    pub fn window_tokens(&self) -> Option<usize> {
        self.texts.first()?.window_tokens()
    }

    /// Converts the model by every recipe; gives the reports in their order.
    ///
    /// # Errors
    /// Those of [`convert_all`], and text that cannot be had.
    pub fn run(&self, observer: &mut dyn Observer) -> Result<Vec<Report>, ConvertError> {
        self.run_all(&self.places, true, observer)
    }

    /// As [`Self::run`], but no model is left: each is written beside its place, read back, measured and removed.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn measure(&self, observer: &mut dyn Observer) -> Result<Vec<Report>, ConvertError> {
        self.run_all(&self.places, false, observer)
    }

    pub(crate) fn run_all(
        &self,
        places: &[PathBuf],
        keep: bool,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError> {
        let companions = Companions::of(&self.folder)?;
        for (file, problem) in &companions.left_out {
            observer.warning(&Warning::LeftOut {
                file: file.clone(),
                problem: problem.clone(),
            });
        }
        let original_card = companions.card();
        let texts = self.read_texts(observer)?;
        let calibrations: Vec<&Corpus> = self.plans.iter().map(|plan| texts.of(plan)).collect();
        let described = self.plans.iter().zip(places).zip(&calibrations);
        let described: Vec<Description> = described
            .map(|((plan, place), calibration)| self.describe(plan, place, calibration, texts.evaluation.as_ref()))
            .collect::<Result<_, _>>()?;
        let loaded;
        let source = match (self.residency(), &self.source) {
            (Residency::Streamed, Some(source)) => source,
            (residency, _) => {
                loaded = open(&self.setup, &self.folder, &self.config, residency)?;
                &loaded
            }
        };
        let entries: Vec<Entry<'_>> = self
            .plans
            .iter()
            .zip(places)
            .zip(calibrations.iter().zip(&described))
            .map(|((plan, save_path), (calibration, description))| Entry {
                plan,
                calibration: &calibration.tokens,
                save_path,
                replace: self.setup.replace,
                keep,
                extra_files: std::slice::from_ref(&description.recipe),
                card: Some(description.card(original_card.as_deref())),
            })
            .collect();
        let requests = Requests {
            source,
            evaluation: texts.evaluation.as_ref().map(|corpus| Evaluation {
                windows: &corpus.tokens,
                options: eval_options(
                    self.plans[0].recipe().evaluation.ppl_eval_batch_size,
                    self.setup.max_memory,
                ),
            }),
            entries: &entries,
        };
        convert_all(&requests, observer)
    }

    /// Reads every text once.
    fn read_texts(&self, observer: &mut dyn Observer) -> Result<Texts<'_>, ConvertError> {
        let mut tokenizer = LazyTokenizer::of(&self.folder);
        let mut texts = Texts {
            calibration: Vec::new(),
            evaluation: None,
        };
        for (index, (plan, text)) in self.plans.iter().zip(&self.texts).enumerate() {
            let reader = text.reader(TextReader {
                config: &self.config,
                hub: &self.setup.hub,
                locals: &self.setup.texts,
                options: ReadOptions {
                    column: None,
                    chat_model: Some(&self.folder),
                },
            });
            if !texts.calibration.iter().any(|(known, _)| known.is_for(plan)) {
                let corpus = text.read_calibration(&mut tokenizer, &reader, observer)?;
                texts.calibration.push((CalibrationOf(plan), corpus));
            }
            if index == 0 {
                texts.evaluation = text.read_evaluation(&mut tokenizer, &reader, observer)?;
            }
        }
        Ok(texts)
    }

    /// What is said of a model beside its weights.
    fn describe(
        &self,
        plan: &Plan,
        place: &Path,
        calibration: &Corpus,
        evaluation: Option<&Corpus>,
    ) -> Result<Description, ConvertError> {
        let (recipe, around) = (plan.recipe(), self.setup.surroundings());
        let bare = |text: &Corpus| bare_origin(&text.origin, recipe, around);
        Ok(Description {
            recipe: (
                RECIPE_FILE.to_owned(),
                written(recipe, place, around).to_toml()?.into_bytes(),
            ),
            model: around.model(&recipe.model_path),
            calibration: bare(calibration),
            evaluation: evaluation.map(bare),
        })
    }
}

/// What is said of a model beside its weights.
struct Description {
    recipe: NamedFile,
    model: ModelName,
    calibration: String,
    evaluation: Option<String>,
}

impl Description {
    fn card<'a>(&'a self, original: Option<&'a str>) -> ModelCard<'a> {
        ModelCard {
            base_model: self.model.id.as_deref(),
            name: &self.model.name,
            calibration: &self.calibration,
            evaluation: self.evaluation.as_deref(),
            original,
        }
    }
}

/// The texts of all plans.
struct Texts<'a> {
    /// By the plan that they were first read for.
    calibration: Vec<(CalibrationOf<'a>, Corpus)>,
    evaluation: Option<Corpus>,
}

/// A plan, for its calibration text.
struct CalibrationOf<'a>(&'a Plan);

impl CalibrationOf<'_> {
    fn is_for(&self, plan: &Plan) -> bool {
        self.0.recipe().calibration == plan.recipe().calibration
    }
}

impl Texts<'_> {
    fn of(&self, plan: &Plan) -> &Corpus {
        let own = self.calibration.iter().find(|(known, _)| known.is_for(plan));
        &own.unwrap_or(&self.calibration[0]).1
    }
}

fn open(setup: &Setup, folder: &Path, config: &ModelConfig, residency: Residency) -> Result<Decoder, ConvertError> {
    let checkpoint = Checkpoint::open(folder)?;
    Ok(Decoder::new(config.clone(), checkpoint, &setup.device, residency)?)
}

/// Whether a folder has weights, complete or not, or other files that are meant to be them.
pub fn has_weights(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    names.map(|entry| entry.file_name()).any(|name| {
        let name = name.to_string_lossy();
        name.contains(".safetensors") || name.contains("pytorch_model")
    })
}
