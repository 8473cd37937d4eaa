//! `transmla eval`: perplexity, and how far another model's predictions are.

use clap::{ArgGroup, Args};
use serde::Serialize;
use transmla_convert::{Corpus, default_window, eval_options, warn_of_long_windows};
use transmla_core::{Decoder, LayeredModel};
use transmla_eval::{divergence, perplexity};

use crate::evaluation_bar::under_bar;
use crate::model::ModelFolder;
use crate::options::compute::ComputeArguments;
use crate::options::model::ModelArguments;
use crate::options::model_name::model_name;
use crate::options::output::OutputArguments;
use crate::options::values;
use crate::options::windows::{DefaultWindows, WindowArguments};
use crate::printer::Printer;
use crate::table::{self, Table};

/// Measure the perplexity of a model, original or converted.
///
/// The text is cut into windows of equal length; every token but a window's first is predicted.
#[derive(Debug, Args)]
#[command(
    group = ArgGroup::new("text").required(true),
    mut_arg("seqlen", |argument| argument.help(SEQLEN)),
    mut_arg("max_windows", |argument| argument.help("Maximum number of windows [default: all]")),
    after_help = EXAMPLES
)]
pub struct EvalArguments {
    #[command(flatten)]
    model: ModelArguments,

    #[command(flatten)]
    text: WindowArguments,

    /// Windows per batch
    #[arg(long, value_name = "N", default_value = "2", value_parser = values::positive)]
    batch_size: usize,

    /// Also compare with the predictions of another model
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    against: Option<String>,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    output: OutputArguments,
}

const SEQLEN: &str = "Tokens per window [default: 2048, or the model's context if that is shorter, or as in --tokens]";

const EXAMPLES: &str = "\
Examples:
  transmla eval --model-path outputs --dataset wikitext2
  transmla eval --model-path outputs --tokens test.safetensors --max-windows 12 --json
  transmla eval --model-path org/model --dataset ptb --against outputs";

#[derive(Debug, Serialize)]
struct EvalResult {
    perplexity: f64,
    mean_nll: f64,
    windows: usize,
    predictions: usize,
    seqlen: usize,
    text: String,
    model_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct Comparison {
    model_path: String,
    kl: f64,
    top1_agreement: f64,
    max_logit_difference: f64,
    positions: usize,
}

pub fn run(arguments: &EvalArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let folder = arguments.model.locate(&printer)?;
    let config = transmla_core::ModelConfig::read(folder.path())?;
    let windows = read_windows(arguments, &folder, &config, &printer)?;
    printer.note(format!(
        "Text: {}, {} of {} tokens",
        windows.origin,
        table::plural(windows.tokens.batch(), "window"),
        windows.tokens.sequence()
    ));
    let other = arguments.against.as_ref().map(|name| {
        let folder = ModelFolder::locate(name, &arguments.model.revision, &printer)?;
        let model = folder.open(&arguments.compute)?;
        Ok::<(&str, ModelFolder, Decoder), anyhow::Error>((name, folder, model))
    });
    let other = other.transpose()?;
    let model = folder.open(&arguments.compute)?;
    let options = eval_options(arguments.batch_size, arguments.compute.max_memory);
    let measured = under_bar(&printer, "Perplexity", |bar| {
        perplexity(&model, &windows.tokens, &options, bar)
    })?;
    let against = other.map(|(name, _folder, other)| {
        let compared = under_bar(&printer, "Divergence", |bar| {
            divergence(&model, &other, &windows.tokens, &options, bar)
        })?;
        Ok::<Comparison, anyhow::Error>(Comparison {
            model_path: name.to_owned(),
            kl: compared.kl,
            top1_agreement: compared.top1_agreement,
            max_logit_difference: compared.max_logit_difference,
            positions: compared.positions,
        })
    });
    let against = against.transpose()?;
    let result = EvalResult {
        perplexity: measured.perplexity,
        mean_nll: measured.mean_nll,
        windows: measured.windows,
        predictions: measured.predictions,
        seqlen: windows.tokens.sequence(),
        text: windows.origin,
        model_path: arguments.model.model_path.clone(),
        against,
    };
    printer.result(&describe(&result, model.config().num_hidden_layers), &result)
}

fn read_windows(
    arguments: &EvalArguments,
    folder: &ModelFolder,
    config: &transmla_core::ModelConfig,
    printer: &Printer,
) -> anyhow::Result<Corpus> {
    let defaults = DefaultWindows {
        sequence: default_window(config).0,
        most: None,
    };
    let Some(corpus) = arguments.text.read(defaults, folder.path(), config, printer)? else {
        // The group of the two is required.
        anyhow::bail!("give --dataset or --tokens");
    };
    warn_of_long_windows(corpus.tokens.sequence(), config, &mut |it| printer.warn(it));
    Ok(corpus)
}

fn describe(result: &EvalResult, layers: usize) -> String {
    let mut table = Table::new(format!("{}, {layers} layers", result.model_path));
    table.row("perplexity", format!("{:.4}", result.perplexity));
    table.row("mean nll", format!("{:.6} nats per token", result.mean_nll));
    let windows = table::plural(result.windows, "window");
    table.row(
        "text",
        format!("{windows} of {} tokens, {}", result.seqlen, result.text),
    );
    if let Some(other) = &result.against {
        table.row("against", other.model_path.clone());
        table.row("", format!("KL divergence {:.6} nats per token", other.kl));
        table.row(
            "",
            format!(
                "same most likely token at {:.2} % of positions",
                100.0 * other.top1_agreement
            ),
        );
        table.row(
            "",
            format!("largest difference of two logits {:.3e}", other.max_logit_difference),
        );
    }
    table.to_string()
}
