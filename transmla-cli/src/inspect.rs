//! `transmla inspect`: what a model is, and what it can be converted to.

mod description;
mod inspection;

use clap::Args;
use transmla_core::ModelConfig;

use self::description::describe;
use self::inspection::Inspection;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::printer::Printer;

/// Show a model's shapes, the size of its KV cache, and what it can be converted to.
///
/// Reads config.json and the headers of the weights alone.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla inspect --model-path org/model --json")]
pub struct InspectArguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    output: OutputArguments,
}

pub fn run(arguments: &InspectArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let folder = arguments.model.locate(&printer)?;
    let config = ModelConfig::read(folder.path())?;
    let inspection = Inspection::new(&arguments.model.model_path, &folder, &config)?;
    printer.result(&describe(&inspection, &config).to_string(), &inspection)
}
