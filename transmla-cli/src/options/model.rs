//! The option that names a model.

use clap::Args;

use super::model_name::model_name;

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Model: a folder, a GGUF file, a hub id, or `embedded`
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    pub model_path: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
}
