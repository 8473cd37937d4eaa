//! The files of a healed model, in the form of the one that was read.

use std::collections::HashMap;
use std::fmt::Write as _;

use transmla_core::checkpoint::{CheckpointWriter, Companions, is_companion, read_regular, read_regular_text};
use transmla_core::model::attention::Attention;
use transmla_core::model::{layer_prefix, model_tensors};
use transmla_core::{Checkpoint, Decoder, LayeredModel, StorageDtype, TensorSpec, host_values};

use crate::heal::request::{HealRequest, Words};
use crate::heal::state::Position;
use crate::heal::student::Student;
use crate::layer::assemble;
use crate::output::manifest::{LARGEST_RECIPE, RECIPE_FILE};
use crate::spec::error::ConvertError;
use crate::spec::healing_report::{Distance, HealReport};
use crate::spec::recipe::Recipe;

const CARD: &str = "README.md";

/// Most bytes of a card that is taken over.
const LARGEST_CARD: u64 = 1 << 20;

/// Files that a form needs beside its weights and companions.
const FORM: [&str; 3] = ["config.json", "configuration_transmla.py", "modeling_transmla.py"];

/// Most bytes of each.
const LARGEST_FILE: u64 = 16 << 20;

/// Names of the last projection of a feed-forward half.
const LAST: [&str; 2] = ["down_proj.weight", "w2.weight"];

/// A model that is trained and to be written.
pub(crate) struct Healed<'a> {
    pub request: &'a HealRequest<'a>,
    pub student: &'a Student<'a>,
    pub position: &'a Position,
}

/// Writes weights and all files that do not depend on what is measured; the writer's folder is a whole model then.
///
/// # Errors
/// The model that was read has changed or cannot be read; the folder cannot be written.
pub(crate) fn write(healed: &Healed<'_>) -> Result<CheckpointWriter, ConvertError> {
    let request = healed.request;
    let checkpoint = request.converted.checkpoint();
    let specs = specs(request.converted)?;
    let recipe = recipe(request.converted)?;
    let mut writer = CheckpointWriter::create(
        request.save_path,
        &specs,
        dtype(checkpoint)?,
        recipe.max_shard_size,
        request.replace,
    )?;
    let folder = checkpoint.folder();
    for file in Companions::of(folder)?.files {
        writer.write_file(&file.name, &file.contents()?)?;
    }
    for name in FORM.iter().filter(|name| !is_companion(name)) {
        if folder.join(name).is_file() {
            writer.write_file(name, &read_regular(&folder.join(name), LARGEST_FILE)?)?;
        }
    }
    let mut written = HashMap::new();
    // What the decoder multiplies the last projection of either half by, when it reads it.
    let output = request.converted.config().residual_multiplier.recip();
    for (index, values) in healed.position.best.iter().enumerate() {
        let layer = healed.student.layer_with(index, values)?;
        // In the form of the checkpoint: rotary rows interleaved, norms as they were.
        if let Attention::Latent(attention) = &layer.attention {
            written.extend(assemble::tensors(index, attention, None, output)?);
        }
        let own = healed.student.weights[index].iter().zip(values);
        for (weights, value) in own {
            let name = weights.key.split_once('.').map_or("", |(_, name)| name);
            if !name.starts_with("self_attn.") {
                let value = match output {
                    output if output != 1.0 && LAST.iter().any(|last| name.ends_with(last)) => {
                        value.clone().mul_scalar(output)
                    }
                    _ => value.clone(),
                };
                written.insert(format!("{}.{name}", layer_prefix(index)), host_values(value)?);
            }
        }
        for spec in specs
            .iter()
            .filter(|spec| spec.name.starts_with(&format!("{}.", layer_prefix(index))))
        {
            match written.remove(&spec.name) {
                Some(values) => writer.write(&spec.name, &values)?,
                None => writer.copy(checkpoint, &spec.name, 1.0)?,
            }
        }
        written.clear();
    }
    let layers = (0..healed.position.best.len()).map(|index| format!("{}.", layer_prefix(index)));
    let layers: Vec<String> = layers.collect();
    for spec in specs
        .iter()
        .filter(|spec| !layers.iter().any(|layer| spec.name.starts_with(layer)))
    {
        writer.copy(checkpoint, &spec.name, 1.0)?;
    }
    for (name, contents) in request.extra_files.iter().filter(|(name, _)| name != RECIPE_FILE) {
        writer.write_file(name, contents)?;
    }
    writer.finish()?;
    Ok(writer)
}

impl Healed<'_> {
    /// Writes the recipe and the model card.
    ///
    /// # Errors
    /// The card or the recipe of the model that was read cannot be read; the folder cannot be written.
    pub fn describe(&self, writer: &mut CheckpointWriter, report: &HealReport) -> Result<(), ConvertError> {
        let given = self.request.extra_files.iter().find(|(name, _)| name == RECIPE_FILE);
        match given {
            Some((name, contents)) => writer.write_file(name, contents)?,
            None => {
                let recipe = Recipe {
                    heal: Some(Box::new(self.request.healing.clone())),
                    ..recipe(self.request.converted)?
                };
                writer.write_file(RECIPE_FILE, recipe.to_toml()?.as_bytes())?;
            }
        }
        let card = self.request.converted.checkpoint().folder().join(CARD);
        if card.is_file() {
            let before = read_regular_text(&card, LARGEST_CARD)?;
            writer.write_file(CARD, self.card(&before, report).as_bytes())?;
        }
        Ok(())
    }

    /// The card of the converted model with what was done to it since.
    fn card(&self, before: &str, report: &HealReport) -> String {
        let mut text: String = before
            .lines()
            .map(|line| format!("{}\n", of_the_conversion(line)))
            .collect();
        let Words { original, text: used } = self.request.words;
        let figures = |distance: &Distance| {
            format!(
                "{:.4} nats a token from the original, cross-entropy {:.4}",
                distance.kl, distance.cross_entropy
            )
        };
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n## Healed\n\nAfter the conversion the model was trained, as a whole, to predict what {} predicts (`transmla \
             heal`). What is said above was measured before.\n\n| | |\n| --- | --- |\n| trained | {} |\n| text | {} |\n\
             | kept | step {} of {}, by held-out text |\n| held-out text before | {} |\n| held-out text after | {} |\n",
            one_line(original),
            one_line(&self.request.healing.describe()),
            one_line(used),
            report.kept,
            self.request.healing.steps,
            figures(&report.before()),
            figures(&report.written),
        );
        text
    }
}

/// A line of a card with figures that were measured before, which says so.
fn of_the_conversion(line: &str) -> String {
    let not_yet = "the model as a whole was not fine-tuned";
    match line.strip_prefix("| perplexity |") {
        Some(rest) => format!("| perplexity before healing |{rest}"),
        None => line.replace(
            not_yet,
            "the model as a whole was not fine-tuned then, but has been healed since",
        ),
    }
}

/// A text that stays in its cell of a table.
fn one_line(text: &str) -> String {
    let kept = text
        .chars()
        .map(|character| if character.is_control() { ' ' } else { character });
    kept.collect::<String>().replace('|', "\\|")
}

/// The recipe that a converted model came with; the defaults for one that came with none.
pub(crate) fn recipe(converted: &Decoder) -> Result<Recipe, ConvertError> {
    let file = converted.checkpoint().folder().join(RECIPE_FILE);
    match file.is_file() {
        true => Ok(toml_recipe(&read_regular_text(&file, LARGEST_RECIPE)?).unwrap_or_default()),
        false => Ok(Recipe::default()),
    }
}

/// A recipe, or nothing where the text is the list of files alone.
fn toml_recipe(text: &str) -> Option<Recipe> {
    Recipe::from_toml(text).ok()
}

/// All tensors of a checkpoint: those of its configuration in their order, then the others.
fn specs(model: &Decoder) -> Result<Vec<TensorSpec>, ConvertError> {
    let checkpoint = model.checkpoint();
    let mut names: Vec<String> = model_tensors(model.config())
        .into_iter()
        .map(|spec| spec.name)
        .filter(|name| checkpoint.contains(name))
        .collect();
    let others: Vec<String> = checkpoint
        .names()
        .filter(|name| !names.iter().any(|known| known == name))
        .map(str::to_owned)
        .collect();
    names.extend(others);
    let spec = |name: String| {
        let shape = checkpoint.shape(&name)?.to_vec();
        Ok(TensorSpec::new(name, shape))
    };
    names.into_iter().map(spec).collect()
}

/// The number format of all tensors of a checkpoint, `f32` where they have several.
fn dtype(checkpoint: &Checkpoint) -> Result<StorageDtype, ConvertError> {
    let mut formats = Vec::new();
    for name in checkpoint.names() {
        formats.extend(checkpoint.dtype(name)?.storage());
    }
    Ok(match formats.first() {
        Some(first) if formats.iter().all(|format| format == first) => *first,
        _ => StorageDtype::F32,
    })
}
