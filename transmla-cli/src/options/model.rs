//! The option that names a model.

use clap::Args;

/// Which model.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Model: a folder, a hub id, or `embedded`
    #[arg(long, value_name = "PATH|ID")]
    pub model_path: String,

    /// Branch, tag or commit of a model on the hub
    #[arg(long, value_name = "REVISION", default_value = "main")]
    pub revision: String,
}
