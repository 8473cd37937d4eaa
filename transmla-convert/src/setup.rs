//! What a conversion has around it, beside its recipe.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_core::hub::HubOptions;

use crate::output::names::{ModelName, Surroundings, bare_origin, written};
use crate::spec::error::ConvertError;
use crate::spec::recipe::Recipe;
use crate::text::source::LocalText;

/// What conversions run on and where they find things; nothing in it changes what a recipe makes, but for the device's rounding, and
/// for calibration text that a recipe leaves to the model, which writes some only where there is the memory for it.
#[derive(Debug, Clone)]
pub struct Setup {
    /// Where models run.
    pub device: Device,
    /// Weights are kept in memory if they take at most half of so many bytes, else read layer by layer.
    pub max_memory: u64,
    /// Bytes that may be used while the original writes calibration text, its weights in memory; absent for `max_memory`, and
    /// never less.
    pub writing_memory: Option<u64>,
    /// Access to models and datasets on the hub.
    pub hub: HubOptions,
    /// Texts of the program's own.
    pub texts: Vec<LocalText>,
    /// Where the model is, if that was found out already.
    pub model_folder: Option<PathBuf>,
    /// What the model goes by, if `model_path` of the recipe is a name of the program's own, no path and no repository.
    pub model_name: Option<String>,
    /// A name, that of the user for instance, that no path in a written file may tell.
    pub hidden_name: Option<String>,
    /// The folder of an earlier conversion, that of the recipe for instance: what the original wrote for it is taken over if
    /// it would write the same again.
    pub earlier: Option<PathBuf>,
    /// Whether an existing folder is replaced, if it holds nothing but what a conversion has written.
    pub replace: bool,
}

impl Default for Setup {
    /// The default device, a GiB of memory, and no hub.
    fn default() -> Self {
        Self {
            device: Device::default(),
            max_memory: 1 << 30,
            writing_memory: None,
            hub: HubOptions::default(),
            texts: Vec::new(),
            model_folder: None,
            model_name: None,
            hidden_name: None,
            earlier: None,
            replace: false,
        }
    }
}

impl Setup {
    /// Bytes that may be used while the original writes.
    pub(crate) fn writing_memory(&self) -> u64 {
        self.writing_memory.unwrap_or_default().max(self.max_memory)
    }

    /// What written files may say.
    pub(crate) fn surroundings(&self) -> Surroundings<'_> {
        Surroundings {
            model_name: self.model_name.as_deref(),
            locals: &self.texts,
            user: self.hidden_name.as_deref(),
        }
    }

    /// What written files call a model.
    pub fn name_of(&self, model_path: &str) -> ModelName {
        self.surroundings().model(model_path)
    }

    /// A recipe as it is written into a model's folder, where paths are relative to it.
    ///
    /// # Errors
    /// [`ConvertError::Recipe`] for a value that TOML does not have.
    pub fn recipe_toml(&self, recipe: &Recipe, folder: &Path) -> Result<String, ConvertError> {
        Ok(written(recipe, folder, self.surroundings()).to_toml()?)
    }

    /// Where a text is from, as a [`Warning`](crate::Warning) or an observer has it, without the folders that it was read from.
    pub fn bare_origin(&self, origin: &str, recipe: &Recipe) -> String {
        bare_origin(origin, recipe, self.surroundings())
    }
}
