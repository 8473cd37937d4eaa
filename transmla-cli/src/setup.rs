//! What the command has around a conversion: the embedded texts, the hub as the environment has it, the device.

use anyhow::Context;
use tempfile::TempDir;
use transmla_convert::{LocalText, Recipe, Setup, TextMix, TextNameError, TextSource};

use crate::model::ModelFolder;
use crate::options::compute::ComputeArguments;
use crate::printer::Printer;
use crate::{embedded, environment};

/// A setup, and what it needs for as long as it is used.
pub struct Surroundings {
    /// For the library.
    pub setup: Setup,
    _texts: Option<TempDir>,
}

impl Surroundings {
    /// Those of a conversion by this recipe, of the model in this folder.
    ///
    /// # Errors
    /// The device cannot be had, or an embedded text not be unpacked.
    pub fn of(
        recipe: &Recipe,
        folder: &ModelFolder,
        compute: &ComputeArguments,
        replace: bool,
        printer: &Printer,
    ) -> anyhow::Result<Self> {
        let (texts, unpacked) = unpacked_texts(recipe)?;
        let setup = Setup {
            device: compute.device.open()?,
            max_memory: compute.max_memory(),
            writing_memory: compute.writing_memory(),
            hub: environment::hub_options(printer),
            texts,
            model_folder: Some(folder.path().to_path_buf()),
            model_name: (recipe.model_path == embedded::MODEL).then(|| embedded::MODEL_NAME.to_owned()),
            hidden_name: environment::user_name(),
            earlier: None,
            replace,
        };
        Ok(Self {
            setup,
            _texts: unpacked,
        })
    }
}

/// The embedded texts by their names alone.
pub fn named_texts() -> Vec<LocalText> {
    vec![LocalText {
        name: embedded::TEXT.into(),
        kind: "embedded".into(),
        folder: Default::default(),
    }]
}

/// The texts of a list, as an option's value.
pub fn parse_mix(text: &str) -> Result<TextMix, TextNameError> {
    TextMix::parse(text, &named_texts())
}

/// A text to measure on, as an option's value.
pub fn parse_source(text: &str) -> Result<TextSource, TextNameError> {
    TextSource::parse_for_evaluation(text, &named_texts())
}

/// The embedded texts where a recipe names them, for as long as their folder lives.
fn unpacked_texts(recipe: &Recipe) -> anyhow::Result<(Vec<LocalText>, Option<TempDir>)> {
    let datasets = [&recipe.calibration.cal_dataset, &recipe.evaluation.eval_dataset];
    let mut mixes = datasets.into_iter().flatten().filter_map(|name| parse_mix(name).ok());
    let named = mixes.any(|mix| {
        mix.parts()
            .iter()
            .any(|(source, _)| matches!(source, TextSource::Local(_)))
    });
    match named {
        true => unpack(),
        false => Ok((named_texts(), None)),
    }
}

/// The embedded texts that a source names, for as long as their folder lives.
///
/// # Errors
/// They cannot be unpacked.
pub fn texts_of(source: &TextSource) -> anyhow::Result<(Vec<LocalText>, Option<TempDir>)> {
    match source {
        TextSource::Local(_) => unpack(),
        TextSource::Own | TextSource::Dataset(_) => Ok((named_texts(), None)),
    }
}

fn unpack() -> anyhow::Result<(Vec<LocalText>, Option<TempDir>)> {
    let folder = embedded::unpack_text().with_context(|| format!("cannot load {}", embedded::TEXT))?;
    let mut texts = named_texts();
    for text in &mut texts {
        text.folder = folder.path().to_path_buf();
    }
    Ok((texts, Some(folder)))
}
