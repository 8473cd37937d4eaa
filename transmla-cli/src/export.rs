//! `transmla export`: a converted model as one GGUF file.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use transmla_convert::write_gguf;

use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::output_file::OutputFile;
use crate::printer::Printer;
use crate::table;

/// Write a converted model as a GGUF file, which llama.cpp runs.
///
/// The model must be in stock form (--style deepseek-v3). Number formats are kept; quantise with llama.cpp's own tool. A GGUF
/// file has one epsilon for all norms, which is found by running the model on a short text.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla export --model-path outputs --output outputs.gguf")]
pub struct ExportArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// llama.cpp's name for how the tokenizer splits text, if it cannot be told: llama-bpe, smollm, gpt-2, …
    #[arg(long, value_name = "NAME")]
    pre_tokenizer: Option<String>,

    #[command(flatten)]
    device: DeviceArguments,

    /// Overwrite the output
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    printing: OutputArguments,
}

pub fn run(arguments: &ExportArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.printing);
    let file = OutputFile {
        option: "--output",
        path: &arguments.output,
        force: arguments.force,
    };
    file.check_free()?;
    let folder = arguments.model.locate(&printer)?;
    file.check_not_of_model(&arguments.model.model_path, folder.path())?;
    let device = arguments.device.open()?;
    write_gguf(
        folder.path(),
        &arguments.output,
        arguments.force,
        arguments.pre_tokenizer.as_deref(),
        &device,
    )?;
    let data = std::fs::metadata(&arguments.output);
    let bytes = data
        .with_context(|| format!("cannot read {}", arguments.output.display()))?
        .len();
    printer.note(format!("Wrote {}, {}", arguments.output.display(), table::bytes(bytes)));
    printer.data(&json!({ "output": arguments.output, "bytes": bytes }))
}
