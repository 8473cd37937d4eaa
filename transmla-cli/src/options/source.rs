//! The options that name a model to convert, which is the embedded one if they are left out.

use clap::Args;
use transmla_convert::Recipe;

use super::model_name::model_name;
use super::set::set;
use crate::embedded;

/// Which model is converted.
#[derive(Debug, Args)]
pub struct SourceArguments {
    /// Model to convert: a folder, a GGUF file, a hub id, or `embedded` [default: embedded]
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    model_path: Option<String>,

    /// Branch, tag or commit of a model on the hub [default: main]
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
}

impl SourceArguments {
    /// The defaults for the model.
    pub fn defaults(&self) -> Recipe {
        match self.is_embedded() {
            true => embedded::recipe(),
            false => Recipe::default(),
        }
    }

    /// Whether it is the embedded model.
    pub fn is_embedded(&self) -> bool {
        matches!(self.model_path.as_deref(), None | Some(embedded::MODEL))
    }

    /// Sets the fields whose options are given.
    pub fn apply(&self, recipe: &mut Recipe) {
        set(&mut recipe.model_path, self.model_path.clone());
        set(&mut recipe.revision, self.revision.clone());
    }
}
