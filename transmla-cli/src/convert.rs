//! `transmla convert`: from arguments to a converted model.

pub mod arguments;
pub mod names;
mod plan_view;
pub mod progress;
pub mod save_path;
mod summary;
pub mod texts;

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use transmla_calib::TextTokenizer;
use transmla_convert::{
    Evaluation, FileFormat, ModelCard, Plan, RECIPE_FILE, Recipe, Request, check_gguf, convert, model_card,
};
use transmla_core::checkpoint::Companions;
use transmla_core::hub::is_path;
use transmla_core::model::model_tensors;
use transmla_core::{Decoder, LayeredModel, ModelConfig, Residency};

pub use self::arguments::ConvertArguments;
use self::names::ModelName;
use self::plan_view::PlanView;
use self::progress::Progress;
use self::save_path::Inputs;
use self::summary::Summary;
use self::texts::TextPlan;
use crate::generate::{Writer, end_ids};
use crate::memory;
use crate::model::ModelFolder;
use crate::printer::{Hint, Printer};

/// Models of more parameters write no sample text: that would read all weights again.
const LARGEST_SAMPLED: usize = 300_000_000;

/// What a converted model continues as a sample.
const SAMPLE_PROMPT: &str = "Once upon a time";

/// Most tokens of the sample.
const SAMPLE_TOKENS: usize = 60;

/// Everything that can be found wrong without reading a weight is found first.
pub fn run(arguments: &ConvertArguments) -> anyhow::Result<()> {
    let started = Instant::now();
    let printer = Printer::from(&arguments.output);
    let mut recipe = arguments.recipe()?;
    arguments.compute.device.open()?;
    // By its name first, as far as that is known without the hub: what would be lost is the better reason.
    let inputs = |model: &Path| Inputs::of(&recipe, model, arguments.recipe_file());
    inputs(Path::new(&recipe.model_path)).check_outside(&arguments.save_path)?;
    save_path::check(&arguments.save_path, arguments.force, arguments.dry_run, &printer)?;
    let located = ModelFolder::locate(&recipe.model_path, &recipe.revision, &printer);
    let folder = match arguments.recipe_file().is_some() && is_path(&recipe.model_path) {
        true => located.context(Hint(
            "recipes hold no paths of other places: say where the model is by --model-path",
        ))?,
        false => located?,
    };
    inputs(folder.path()).check_outside(&arguments.save_path)?;
    let config = ModelConfig::read(folder.path())?;
    for note in &config.notes {
        printer.note(format!("note: {note}"));
    }
    arguments.apply_budget(&mut recipe, &config)?;
    let plan = Plan::new(&config, &recipe)?;
    check_gguf(&plan, folder.path())?;
    let made = [(arguments.save_path.as_path(), &plan)];
    save_path::check_room(made, arguments.dry_run, &printer)?;
    // Opening a model as streamed checks the headers and reads no weight. A plan can do without.
    let mut source = match arguments.dry_run && !folder.has_weights() {
        true => None,
        false => Some(folder.open_as(&arguments.compute, config.clone(), Residency::Streamed)?),
    };
    let text_plan = TextPlan::new(&recipe, &config, &printer)?;
    text_plan.complete(&mut recipe);
    let eval_options = memory::eval_options(recipe.evaluation.ppl_eval_batch_size, arguments.compute.max_memory);
    let residency = memory::residency(&config, arguments.compute.max_memory);
    let view = PlanView {
        model: &recipe.model_path,
        target: &arguments.save_path,
        plan: &plan,
        texts: &text_plan,
        source_bytes: source.as_ref().map(|source| source.checkpoint().total_bytes()),
        residency,
    };
    if arguments.dry_run {
        return printer.result(&view.table().to_string(), &view.json());
    }
    printer.note(view.table());
    let card = original_card(folder.path(), &printer)?;
    let texts = text_plan.read(folder.path(), &config, &printer)?;
    let extra_files = files(
        &recipe,
        &plan,
        card.as_deref(),
        &arguments.save_path,
        &texts.calibration.origin,
    )?;
    let source = match (residency, source.take()) {
        (Residency::Streamed, Some(source)) => source,
        (residency, _) => folder.open_as(&arguments.compute, config.clone(), residency)?,
    };

    let request = Request {
        plan: &plan,
        source: &source,
        calibration: &texts.calibration.tokens,
        evaluation: texts.evaluation.as_ref().map(|corpus| Evaluation {
            windows: &corpus.tokens,
            options: eval_options,
        }),
        save_path: &arguments.save_path,
        replace: arguments.force,
        extra_files: &extra_files,
    };
    let mut progress = Progress::new(&printer);
    let report = convert(&request, &mut progress)?;
    let total_seconds = started.elapsed().as_secs_f64();
    let summary = Summary {
        model: &recipe.model_path,
        target: &arguments.save_path,
        plan: &plan,
        report: &report,
        text: texts.evaluation.as_ref().map(|corpus| corpus.origin.as_str()),
        stages: &progress.stages,
        total_seconds,
        cpu_seconds: memory::cpu_seconds(),
        peak_bytes: memory::peak_bytes(),
        sample: match plan.recipe().file_format() {
            FileFormat::Safetensors => sample(arguments, &source, &printer),
            FileFormat::Gguf => None,
        },
        has_tokenizer: arguments.save_path.join("tokenizer.json").is_file(),
    };
    printer.note("");
    printer.result(&summary.text(), &summary.json())
}

/// The card of the original, once it is known that what goes with its weights can be taken along.
pub fn original_card(source: &Path, printer: &Printer) -> anyhow::Result<Option<String>> {
    let companions = Companions::of(source)?;
    for (name, problem) in &companions.left_out {
        printer.warn(format!("{name} of the original is left out: {problem}"));
    }
    Ok(companions.card())
}

/// Files beside the weights that say what the model is: its recipe and its card.
pub fn files(
    recipe: &Recipe,
    plan: &Plan,
    original_card: Option<&str>,
    target: &Path,
    calibration: &str,
) -> anyhow::Result<[(String, Vec<u8>); 2]> {
    let model = ModelName::of(&recipe.model_path);
    let card = ModelCard {
        base_model: model.id.as_deref(),
        name: &model.name,
        calibration: &names::origin(calibration, recipe),
        original: original_card,
    };
    let card = model_card(plan, &card);
    Ok([
        (
            RECIPE_FILE.to_owned(),
            names::written(recipe, target).to_toml()?.into_bytes(),
        ),
        ("README.md".to_owned(), card.into_bytes()),
    ])
}

fn numbers(config: &ModelConfig) -> usize {
    model_tensors(config)
        .iter()
        .map(transmla_core::TensorSpec::elements)
        .sum()
}

/// A few sentences by the model as it was saved, for people, if it is small and has a tokenizer.
fn sample(arguments: &ConvertArguments, source: &Decoder, printer: &Printer) -> Option<String> {
    let folder = &arguments.save_path;
    let small = numbers(source.config()) < LARGEST_SAMPLED;
    if !printer.is_text() || !small || !folder.join("tokenizer.json").is_file() {
        return None;
    }
    let written = || {
        let tokenizer = TextTokenizer::from_folder(folder)?;
        let model = Decoder::open(folder, source.device(), Residency::Loaded)?;
        let writer = Writer {
            model: &model,
            tokenizer: &tokenizer,
            end_ids: &end_ids(folder, model.config()),
        };
        let mut text = SAMPLE_PROMPT.to_owned();
        writer.write(
            SAMPLE_PROMPT,
            SAMPLE_TOKENS,
            transmla_core::generate::Sampler::Greedy,
            &mut |piece| {
                text.push_str(piece);
                Ok(())
            },
        )?;
        anyhow::Ok(text)
    };
    match written() {
        Ok(text) => Some(whole_sentences(&text)),
        // The conversion itself is done.
        Err(error) => {
            printer.warn(format!("no sample text: {error}"));
            None
        }
    }
}

/// The text up to its last sentence that is whole, on one line and without what would steer a terminal.
fn whole_sentences(text: &str) -> String {
    let words: Vec<&str> = text.split(|c: char| c.is_whitespace() || c.is_control()).collect();
    let line = words
        .into_iter()
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ");
    match line.rfind(['.', '!', '?']) {
        Some(end) => line[..=end].to_owned(),
        None => format!("{line} …"),
    }
}
