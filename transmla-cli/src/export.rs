//! `transmla export`: a converted model as one GGUF file.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use serde_json::json;
use transmla_convert::{GgufOptions, Quantization, write_gguf};

use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::output_file::OutputFile;
use crate::printer::Printer;
use crate::table;

const EXAMPLES: &str = "Examples:
  transmla export --model-path outputs --output outputs.gguf
  transmla export --model-path outputs --output outputs-q4_k_m.gguf --quantize q4_k_m";

/// Write a converted model as a GGUF file, which llama.cpp runs.
///
/// The model must be in stock form (--style deepseek-v3). Matrices keep their number format unless --quantize is given. A GGUF
/// file has one epsilon for all norms, which is found by running the model on a short text.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ExportArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// File to write
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Quantise the matrices: 8.5, 6.6 and about 5 bits a number; rows that are no multiple of 256 get q8_0 for q6_k and q5_0 for
    /// q4_k
    #[arg(long, value_name = "FORMAT")]
    quantize: Option<Quantization>,

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
    let options = GgufOptions {
        pre_tokenizer: arguments.pre_tokenizer.as_deref(),
        quantization: arguments.quantize,
        replace: arguments.force,
    };
    write_gguf(folder.path(), &arguments.output, &options, &device)?;
    let data = std::fs::metadata(&arguments.output);
    let bytes = data
        .with_context(|| format!("cannot read {}", arguments.output.display()))?
        .len();
    printer.note(format!("Wrote {}, {}", arguments.output.display(), table::bytes(bytes)));
    printer.data(&json!({ "output": arguments.output, "bytes": bytes }))
}
