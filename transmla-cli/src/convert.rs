//! `transmla convert`: from arguments to a converted model.

pub mod arguments;
mod plan_view;
pub mod progress;
pub mod save_path;
mod summary;

use std::path::Path;
use std::time::Instant;

use anyhow::Context;
use burn::tensor::Device;
use transmla_calib::TextTokenizer;
use transmla_convert::{Conversion, FileFormat};
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::hub::is_path;
use transmla_core::model::model_tensors;
use transmla_core::{Checkpoint, Decoder, LayeredModel, ModelConfig, Residency, StorageDtype};

pub use self::arguments::ConvertArguments;
use self::plan_view::PlanView;
use self::progress::Progress;
use self::save_path::Inputs;
use self::summary::Summary;
use crate::advice::with_hint;
use crate::memory;
use crate::model::ModelFolder;
use crate::options::budget;
use crate::printer::{Hint, Printer};
use crate::setup::Surroundings;
use crate::writer::Writer;

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
    let around = Surroundings::of(&recipe, &folder, &arguments.compute, arguments.force, &printer)?;
    let mut progress = Progress::new(&printer);
    let conversion = Conversion::new(recipe)?.with(around.setup.clone());
    let planned = conversion.plan(&mut progress).map_err(with_hint)?;
    let plan = planned.plan();
    let (original, kept) = plan.cache_numbers();
    budget::warning(original, kept)
        .iter()
        .for_each(|warning| printer.warn(warning));
    save_path::check_room([(arguments.save_path.as_path(), plan)], arguments.dry_run, &printer)?;
    if planned.source_bytes().is_none() && !arguments.dry_run {
        // Says what is missing.
        Checkpoint::open(folder.path())?;
    }
    let model = &plan.recipe().model_path;
    let view = PlanView {
        model,
        target: &arguments.save_path,
        planned: &planned,
    };
    if arguments.dry_run {
        return printer.result(&view.table().to_string(), &view.json());
    }
    printer.note(view.table());
    let report = planned.run(&arguments.save_path, &mut progress).map_err(with_hint)?;
    let total_seconds = started.elapsed().as_secs_f64();
    let summary = Summary {
        model,
        target: &arguments.save_path,
        plan,
        report: &report,
        text: progress.evaluation_text.as_deref(),
        stages: &progress.stages,
        total_seconds,
        cpu_seconds: memory::cpu_seconds(),
        peak_bytes: memory::peak_bytes(),
        sample: match plan.recipe().file_format() {
            FileFormat::Safetensors => sample(arguments, plan.source(), &around.setup.device, &printer),
            FileFormat::Gguf => None,
        },
        has_tokenizer: arguments.save_path.join("tokenizer.json").is_file(),
    };
    printer.note("");
    printer.result(&summary.text(), &summary.json())
}

fn numbers(config: &ModelConfig) -> usize {
    model_tensors(config)
        .iter()
        .map(transmla_core::TensorSpec::elements)
        .sum()
}

/// A few sentences by the model as it was saved, for people, if it is small and has a tokenizer.
fn sample(arguments: &ConvertArguments, source: &ModelConfig, device: &Device, printer: &Printer) -> Option<String> {
    let folder = &arguments.save_path;
    let small = numbers(source) < LARGEST_SAMPLED;
    if !printer.is_text() || !small || !folder.join("tokenizer.json").is_file() {
        return None;
    }
    let written = || {
        let tokenizer = TextTokenizer::from_folder(folder)?;
        let model = Decoder::open(folder, device, Residency::Loaded)?;
        let settings = GenerationSettings::from_folder(folder, model.config())?;
        let writer = Writer {
            model: &model,
            tokenizer: &tokenizer,
            stop_ids: &settings.stop_ids,
            max_new_tokens: SAMPLE_TOKENS,
        };
        let ids = writer.prompt_ids(SAMPLE_PROMPT)?;
        let mut cache = writer.cache(ids.len(), StorageDtype::F32);
        let mut text = SAMPLE_PROMPT.to_owned();
        writer.write(&mut cache, &ids, &mut Sampler::greedy(), &mut |piece| {
            text.push_str(piece);
            Ok(())
        })?;
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
