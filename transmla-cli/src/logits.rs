//! `transmla logits`: the numbers themselves, for comparisons with other programs.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use transmla_core::checkpoint::{read_input_ids, write_logits};
use transmla_core::{LayeredModel, ModelConfig};

use crate::options::compute::ComputeArguments;
use crate::options::model::ModelArguments;
use crate::options::output::OutputArguments;
use crate::output_file::OutputFile;
use crate::printer::Printer;
use crate::table;
use transmla_convert::check_length;

/// Write the logits of given token ids to a file.
///
/// Reads `input_ids` [batch, seq] (i64 or i32) and writes `logits` [batch, seq, vocab] (f32), both safetensors.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  transmla logits --model-path outputs --input-ids ids.safetensors --output logits.safetensors"
)]
pub struct LogitsArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// Token ids: `input_ids` [batch, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    input_ids: PathBuf,

    /// File to write the logits to
    #[arg(long, value_name = "FILE")]
    output: PathBuf,

    /// Overwrite the output
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    printing: OutputArguments,
}

pub fn run(arguments: &LogitsArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.printing);
    let output = arguments.output.display();
    let file = OutputFile {
        option: "--output",
        path: &arguments.output,
        force: arguments.force,
    };
    file.check_free()?;
    file.check_not_read([("the token ids", arguments.input_ids.as_path())])?;
    check_writable(&arguments.output)?;
    let ids = read_input_ids(&arguments.input_ids)?;
    let folder = arguments.model.locate(&printer)?;
    file.check_not_of_model(&arguments.model.model_path, folder.path())?;
    let config = ModelConfig::read(folder.path())?;
    let input = arguments.input_ids.display();
    let fits = ids.check_vocabulary(config.vocab_size).map_err(anyhow::Error::from);
    fits.and_then(|()| Ok(check_length(ids.sequence(), &config)?))
        .with_context(|| format!("cannot use {input}"))?;
    let model = folder.open(&arguments.compute)?;
    let shape = [ids.batch(), ids.sequence(), model.config().vocab_size];
    let mut logits: Vec<f32> = Vec::with_capacity(shape.iter().product());
    let mut bar = printer.bar("Logits");
    for row in (0..shape[0]).filter_map(|row| ids.rows(row..row + 1)) {
        let data = model.logits(&row, None)?.try_into_data();
        let data = data.map_err(|error| anyhow::anyhow!("the device failed: {error}"))?;
        logits.extend(data.iter::<f32>());
        bar.step(shape[0] as u64);
    }
    drop(bar);
    // It may have come there in the meantime.
    file.check_free()?;
    write_logits(&arguments.output, &logits, shape)?;
    let numbers = table::count(logits.len() as u64);
    printer.note(format!("Wrote logits {shape:?}, {numbers} numbers, to {output}"));
    printer.data(&json!({ "output": arguments.output, "shape": shape }))
}

/// Finds out that the output cannot be written before it is computed.
fn check_writable(output: &Path) -> anyhow::Result<()> {
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty());
    let folder = folder.unwrap_or(Path::new("."));
    let probe = tempfile::Builder::new().prefix(".transmla-").tempfile_in(folder);
    probe.with_context(|| format!("cannot write --output {}", output.display()))?;
    Ok(())
}
