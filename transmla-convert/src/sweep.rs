//! Several conversions of one model from recipes: what they have in common is done once.

use std::cell::OnceCell;
use std::path::{Path, PathBuf};

use transmla_calib::ReadOptions;
use transmla_core::checkpoint::{Claim, Companions};
use transmla_core::hub::model_folder;
use transmla_core::{Checkpoint, Decoder, ModelConfig, Residency};
use transmla_eval::tasks::PreparedTasks;

use crate::execute::{Entry, Requests, convert_all};
use crate::memory::{
    conversion_bytes, eval_options, residency, scoring_options, weight_bytes, writing_residency, writing_share,
};
use crate::output::card::ModelCard;
use crate::output::gguf::check_gguf;
use crate::output::manifest::RECIPE_FILE;
use crate::output::names::{ModelName, bare_origin, written};
use crate::output::room::DiskNeeds;
use crate::own_text::{NamedFile, OpenOriginal, OwnText};
use crate::setup::Setup;
use crate::solve::evaluation::{Evaluation, Questions};
use crate::solve::work::TextSize;
use crate::solve::{default_noise, has_refinement, refinement};
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;
use crate::spec::recipe::{Recipe, RecipeError};
use crate::spec::report::{Observer, Report, Warning};
use crate::text::corpus::{Corpus, TextReader};
use crate::text::default_text::{TextDefaults, can_chat, default_text};
use crate::text::mix::TextMix;
use crate::text::plan::{LazyTokenizer, TextPlan};
use crate::text::tasks::TaskPlan;
use crate::text::written::side_by_side;

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
            if (&recipe.evaluation, &recipe.tasks) != (&first.evaluation, &first.tasks) {
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
    /// Of all of them.
    tasks: Option<TaskPlan>,
    /// Nothing where there are no weights.
    source: Option<Decoder>,
    places: Vec<PathBuf>,
}

/// Plans conversions of one model, of which there is at least one.
pub(crate) fn plan_all(
    setup: &Setup,
    mut recipes: Vec<Recipe>,
    observer: &mut dyn Observer,
) -> Result<PlannedSweep, ConvertError> {
    let healed = recipes.iter_mut().filter_map(|recipe| recipe.heal.take()).count();
    if healed > 0 {
        observer.warning(&Warning::NotHealed);
    }
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
    let calibration = calibration_text(setup, &recipes, &folder, &config, observer);
    let mut texts: Vec<TextPlan> = Vec::with_capacity(plans.len());
    for (index, recipe) in recipes.iter().enumerate() {
        let noise = default_noise(recipe.method);
        let defaults = TextDefaults {
            calibration: &calibration,
            noise,
            locals: &setup.texts,
        };
        let same = recipes[..index]
            .iter()
            .position(|other| (&other.calibration, default_noise(other.method)) == (&recipe.calibration, noise));
        let text = match same {
            Some(known) => texts[known].clone(),
            None => TextPlan::new(recipe, &config, &defaults, observer)?,
        };
        plans[index].complete(&|recipe| {
            text.complete(recipe);
            if refinement(recipe) > 0 {
                recipe.refine_batch.get_or_insert(text.texts());
            }
        });
        texts.push(text);
    }
    let asked = recipes
        .first()
        .map(|recipe| &recipe.tasks)
        .filter(|tasks| !tasks.is_empty());
    Ok(PlannedSweep {
        tasks: asked.map(|tasks| TaskPlan::new(tasks, &folder, None)).transpose()?,
        setup: setup.clone(),
        folder,
        config,
        plans,
        texts,
        source,
        places: Vec::new(),
    })
}

/// The calibration text of recipes that name none.
fn calibration_text(
    setup: &Setup,
    recipes: &[Recipe],
    folder: &Path,
    config: &ModelConfig,
    observer: &mut dyn Observer,
) -> TextMix {
    let open = |recipe: &Recipe| recipe.calibration.cal_dataset.is_none() && recipe.calibration.cal_tokens.is_none();
    if !recipes.iter().any(open) || !can_chat(folder) {
        return default_text(false);
    }
    let fits = writing_residency(config, setup) == Residency::Loaded;
    if !fits {
        observer.warning(&Warning::WritesNothing {
            needed: weight_bytes(config) + writing_share(setup.max_memory),
            allowed: setup.writing_memory(),
        });
    }
    default_text(fits)
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

    /// Whether the original's weights are in memory: if they take half of what may be used at most, and everything beside them
    /// leaves them room.
    pub(crate) fn residency(&self) -> Residency {
        let max_memory = self.setup.max_memory;
        let bytes = |(plan, texts)| conversion_bytes(plan, texts, Residency::Loaded, &self.setup);
        let fits = self
            .plans
            .iter()
            .zip(&self.texts)
            .map(bytes)
            .all(|bytes| bytes <= max_memory);
        match residency(&self.config, max_memory) {
            Residency::Loaded if fits => Residency::Loaded,
            _ => Residency::Streamed,
        }
    }

    pub(crate) fn peak_bytes(&self, index: usize) -> u64 {
        conversion_bytes(&self.plans[index], &self.texts[index], self.residency(), &self.setup)
    }

    /// Bytes on disk that each model takes while it is made, in the order of the recipes.
    pub fn disk_needs(&self) -> Vec<DiskNeeds> {
        (0..self.plans.len()).map(|index| self.disk_needs_of(index)).collect()
    }

    pub(crate) fn disk_needs_of(&self, index: usize) -> DiskNeeds {
        let (samples, tokens) = self.texts[index].calibration_shape();
        DiskNeeds::of(&self.plans[index], samples, tokens)
    }

    pub(crate) fn text_size(&self, index: usize) -> TextSize {
        let texts = &self.texts[index];
        let (samples, tokens) = texts.calibration_shape();
        let own = texts.own_spec();
        let share = writing_share(self.setup.max_memory);
        let window = texts.window_tokens();
        TextSize {
            samples,
            written: own.map_or(0, |spec| spec.samples),
            side_by_side: own.map_or(0, |spec| side_by_side(&self.config, &spec, share)),
            tokens,
            windows: window.map_or(0, |_| texts.windows().unwrap_or(1)),
            window: window.unwrap_or_default(),
        }
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
        let loaded = OnceCell::new();
        let original = || self.original(&loaded);
        let texts = self.read_texts(&|| self.writer(original()?), places, observer)?;
        let calibrations: Vec<&Calibration> = self.plans.iter().map(|plan| texts.of(plan)).collect();
        let described = self.plans.iter().zip(places).zip(&calibrations);
        let described: Vec<Description> = described
            .map(|((plan, place), calibration)| self.describe(plan, place, calibration, texts.evaluation.as_ref()))
            .collect::<Result<_, _>>()?;
        let source = original()?;
        let quantised = source.checkpoint().quantisation();
        let entries: Vec<Entry<'_>> = self
            .plans
            .iter()
            .zip(places)
            .zip(calibrations.iter().zip(&described))
            .map(|((plan, save_path), (calibration, description))| Entry {
                plan,
                calibration: &calibration.corpus.tokens,
                save_path,
                replace: self.setup.replace,
                keep,
                extra_files: &description.files,
                card: Some(description.card(original_card.as_deref(), quantised.as_deref())),
            })
            .collect();
        let batch_size = self.plans[0].recipe().evaluation.ppl_eval_batch_size;
        let requests = Requests {
            source,
            evaluation: texts.evaluation.as_ref().map(|corpus| Evaluation {
                windows: &corpus.tokens,
                options: eval_options(batch_size, self.setup.max_memory),
            }),
            questions: texts.questions.as_ref().map(|tasks| Questions {
                tasks,
                options: scoring_options(batch_size, self.setup.max_memory),
            }),
            entries: &entries,
        };
        convert_all(&requests, observer)
    }

    /// The original, its weights in memory if they are to be; read when it is first needed.
    fn original<'a>(&'a self, loaded: &'a OnceCell<Decoder>) -> Result<&'a Decoder, ConvertError> {
        let residency = self.residency();
        if let (Residency::Streamed, Some(source)) = (residency, &self.source) {
            return Ok(source);
        }
        match loaded.get() {
            Some(source) => Ok(source),
            None => {
                let source = open(&self.setup, &self.folder, &self.config, residency)?;
                Ok(loaded.get_or_init(|| source))
            }
        }
    }

    /// The original while it writes: a streamed one would be read again for every token, so its weights are in memory then
    /// if they may be at all.
    fn writer(&self, original: &Decoder) -> Result<Decoder, ConvertError> {
        match (self.residency(), writing_residency(&self.config, &self.setup)) {
            (Residency::Streamed, Residency::Loaded) => {
                open(&self.setup, &self.folder, &self.config, Residency::Loaded)
            }
            _ => Ok(original.clone()),
        }
    }

    /// Reads every text once, or has the original write it.
    fn read_texts<'a>(
        &'a self,
        original: &OpenOriginal<'_>,
        places: &[PathBuf],
        observer: &mut dyn Observer,
    ) -> Result<Texts<'a>, ConvertError> {
        let mut tokenizer = LazyTokenizer::of(&self.folder);
        let max_bytes = writing_share(self.setup.max_memory);
        let earlier = self.setup.earlier.as_deref();
        let mut author = OwnText::new(self.source.as_ref(), original, &self.folder, places, earlier, max_bytes);
        // Nobody else comes to these places while the original writes.
        let writes = self.texts.iter().any(|text| text.own_spec().is_some());
        let claimed = if writes { places } else { &[] };
        let _claims: Vec<Claim> = claimed.iter().map(|place| Claim::of(place)).collect::<Result<_, _>>()?;
        let mut texts = Texts {
            calibration: Vec::new(),
            evaluation: None,
            questions: None,
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
                author.is_for(index);
                let corpus = text.read_calibration(&mut tokenizer, &mut author, &reader, observer)?;
                let own_file = author.take_file();
                texts
                    .calibration
                    .push((CalibrationOf(plan), Calibration { corpus, own_file }));
            }
            if index == 0 {
                texts.evaluation = text.read_evaluation(&mut tokenizer, &reader, observer)?;
            }
        }
        if let Some(tasks) = &self.tasks {
            let tokenizer = tokenizer.get(observer)?;
            let questions = tasks.read(&self.config, tokenizer, &self.setup.hub)?;
            texts.questions = Some(questions);
        }
        Ok(texts)
    }

    /// What is said of a model beside its weights.
    fn describe(
        &self,
        plan: &Plan,
        place: &Path,
        calibration: &Calibration,
        evaluation: Option<&Corpus>,
    ) -> Result<Description, ConvertError> {
        let (recipe, around) = (plan.recipe(), self.setup.surroundings());
        let bare = |text: &Corpus| bare_origin(&text.origin, recipe, around);
        let mut files = vec![(
            RECIPE_FILE.to_owned(),
            written(recipe, place, around).to_toml()?.into_bytes(),
        )];
        files.extend(calibration.own_file.clone());
        Ok(Description {
            files,
            model: around.model(&recipe.model_path),
            calibration: bare(&calibration.corpus),
            evaluation: evaluation.map(bare),
        })
    }
}

/// What is said of a model beside its weights.
struct Description {
    /// The recipe, and what the original wrote for it.
    files: Vec<NamedFile>,
    model: ModelName,
    calibration: String,
    evaluation: Option<String>,
}

impl Description {
    fn card<'a>(&'a self, original: Option<&'a str>, quantised: Option<&'a str>) -> ModelCard<'a> {
        ModelCard {
            base_model: self.model.id.as_deref(),
            name: &self.model.name,
            calibration: &self.calibration,
            evaluation: self.evaluation.as_deref(),
            quantised,
            original,
        }
    }
}

/// The texts of all plans.
struct Texts<'a> {
    /// By the plan that they were first read for.
    calibration: Vec<(CalibrationOf<'a>, Calibration)>,
    evaluation: Option<Corpus>,
    questions: Option<PreparedTasks>,
}

/// A calibration text.
struct Calibration {
    corpus: Corpus,
    /// What the original wrote of it, to be kept beside the model.
    own_file: Option<NamedFile>,
}

/// A plan, for its calibration text.
struct CalibrationOf<'a>(&'a Plan);

impl CalibrationOf<'_> {
    fn is_for(&self, plan: &Plan) -> bool {
        self.0.recipe().calibration == plan.recipe().calibration
    }
}

impl Texts<'_> {
    fn of(&self, plan: &Plan) -> &Calibration {
        let own = self.calibration.iter().find(|(known, _)| known.is_for(plan));
        &own.unwrap_or(&self.calibration[0]).1
    }
}

fn open(setup: &Setup, folder: &Path, config: &ModelConfig, residency: Residency) -> Result<Decoder, ConvertError> {
    let checkpoint = Checkpoint::open(folder)?;
    Ok(Decoder::new(config.clone(), checkpoint, &setup.device, residency)?)
}

/// Whether a path is that of weights, or of a folder that has some, complete or not, or other files that are meant to be them.
pub fn has_weights(folder: &Path) -> bool {
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten();
    Checkpoint::is_in(folder)
        || names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy();
            name.contains(".safetensors") || name.contains("pytorch_model")
        })
}
