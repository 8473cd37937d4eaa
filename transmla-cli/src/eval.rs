//! `transmla eval`: perplexity, how far another model's predictions are, and accuracy on tasks.

mod by_position;
mod measured;
mod tasks;

use clap::{ArgGroup, Args};
use serde::Serialize;
use transmla_convert::{Corpus, RecipeTasks, default_window, eval_options, scoring_options, warn_of_long_windows};
use transmla_core::{CacheFormat, Decoder, ModelConfig};
use transmla_eval::{EvalOptions, ScoringOptions, divergence_by_position, perplexity_by_position};

use self::by_position::{ComparedRange, MeasuredRange, compared_ranges, measured_ranges};
use self::measured::Measured;
use self::tasks::Models;
use crate::evaluation_bar::under_bar;
use crate::model::ModelFolder;
use crate::options::compute::ComputeArguments;
use crate::options::model::ModelArguments;
use crate::options::model_name::model_name;
use crate::options::output::OutputArguments;
use crate::options::tasks::TaskArguments;
use crate::options::values;
use crate::options::windows::{DefaultWindows, WindowArguments};
use crate::printer::Printer;
use crate::table::{self, Table};

/// Measure the perplexity of a model, original or converted, or its accuracy on tasks.
///
/// A text is cut into windows of equal length; every token but a window's first is predicted. Standard errors are of the spread
/// between windows.
///
/// Tasks are scored as lm-evaluation-harness scores them, by the log-likelihoods of the answers.
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

    /// Windows per batch; 256 tokens of tasks count as a window
    #[arg(long, value_name = "N", default_value = "2", value_parser = values::positive)]
    batch_size: usize,

    /// Also compare with the predictions of another model
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    against: Option<String>,

    /// Also by position in the window: predictions behind tokens 0 to 127, 128 to 255, 256 to 511, 512 to 1023 and so on
    #[arg(long, conflicts_with = "tasks")]
    by_position: bool,

    /// Measure through a KV cache in this format, where every token attends to what the cache keeps: fp32, bf16 or fp16; for
    /// the latents of converted models also int8, fp8-e4m3 or int4. A model compared with has none [default: no cache]
    #[arg(long, value_name = "DTYPE")]
    cache_dtype: Option<CacheFormat>,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    output: OutputArguments,

    // Last: its heading is that of everything behind it.
    #[command(flatten)]
    tasks: TaskArguments,
}

const SEQLEN: &str = "Tokens per window [default: 2048, or the model's context if that is shorter, or as in --tokens]";

const EXAMPLES: &str = "\
Examples:
  transmla eval --model-path outputs --dataset wikitext2
  transmla eval --model-path outputs --tokens test.safetensors --max-windows 12 --json
  transmla eval --model-path org/model --dataset wikitext2,ptb --against outputs
  transmla eval --model-path outputs --dataset wikitext2 --cache-dtype int4 --against outputs
  transmla eval --model-path outputs --dataset wikitext2 --seqlen 8192 --max-windows 4 --by-position --against org/model
  transmla eval --model-path outputs --tasks arc_easy,hellaswag,piqa --limit 200 --against org/model";

/// What was measured on one text.
#[derive(Debug, Serialize)]
struct TextResult {
    #[serde(flatten)]
    measured: Measured,
    windows: usize,
    predictions: usize,
    seqlen: usize,
    text: String,
    model_path: String,
    /// The format of the cache that it is measured through.
    #[serde(skip_serializing_if = "Option::is_none")]
    cache_dtype: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_position: Option<Vec<MeasuredRange>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct Comparison {
    model_path: String,
    #[serde(flatten)]
    measured: Measured,
    kl: f64,
    top1_agreement: f64,
    max_logit_difference: f64,
    positions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    by_position: Option<Vec<ComparedRange>>,
}

/// Results on several texts.
#[derive(Debug, Serialize)]
struct TextResults<'a> {
    texts: &'a [TextResult],
}

/// A model that is compared with, its name, and the folder that it is read from.
struct Other<'a> {
    name: &'a str,
    model: Decoder,
    _folder: ModelFolder,
}

pub fn run(arguments: &EvalArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let asked = arguments.tasks.recipe()?;
    let folder = arguments.model.locate(&printer)?;
    if let Some(format) = arguments.cache_dtype {
        format.check(&ModelConfig::read(folder.path())?)?;
    }
    if !asked.is_empty() {
        return run_tasks(arguments, &asked, &folder, &printer);
    }
    let config = ModelConfig::read(folder.path())?;
    let layers = config.num_hidden_layers;
    let corpora = read_windows(arguments, &folder, &config, &printer)?;
    let other = arguments.against.as_ref().map(|name| {
        let folder = ModelFolder::locate(name, &arguments.model.revision, &printer)?;
        let model = folder.open(&arguments.compute)?;
        anyhow::Ok(Other {
            name,
            model,
            _folder: folder,
        })
    });
    let other = other.transpose()?;
    let model = folder.open(&arguments.compute)?;
    let model = match arguments.cache_dtype {
        Some(format) => model.for_cache(format)?,
        None => model,
    };
    let options = EvalOptions {
        cache: arguments.cache_dtype,
        ..eval_options(arguments.batch_size, arguments.compute.max_memory())
    };
    let mut results = Vec::with_capacity(corpora.len());
    for corpus in corpora {
        let measuring = Measuring {
            model: &model,
            other: other.as_ref(),
            options,
            by_position: arguments.by_position,
            printer: &printer,
        };
        results.push(measuring.on(corpus, &arguments.model.model_path)?);
    }
    let tables: Vec<String> = results.iter().map(|result| describe(result, layers)).collect();
    match &results[..] {
        [one] => printer.result(&tables[0], one),
        several => printer.result(&tables.join("\n"), &TextResults { texts: several }),
    }
}

fn run_tasks(
    arguments: &EvalArguments,
    asked: &RecipeTasks,
    folder: &ModelFolder,
    printer: &Printer,
) -> anyhow::Result<()> {
    let against = arguments.against.as_ref().map(|name| {
        let folder = ModelFolder::locate(name, &arguments.model.revision, printer)?;
        anyhow::Ok((name.as_str(), folder))
    });
    let against = against.transpose()?;
    let scoring = ScoringOptions {
        cache: arguments.cache_dtype,
        ..scoring_options(arguments.batch_size, arguments.compute.max_memory())
    };
    let models = Models {
        name: &arguments.model.model_path,
        folder,
        open: &|folder| folder.open(&arguments.compute),
        against: against.as_ref().map(|(name, folder)| (*name, folder)),
    };
    tasks::run(&arguments.tasks, asked, &models, scoring, printer)
}

/// What texts are measured with.
struct Measuring<'a> {
    model: &'a Decoder,
    other: Option<&'a Other<'a>>,
    options: EvalOptions,
    by_position: bool,
    printer: &'a Printer,
}

impl Measuring<'_> {
    fn on(&self, corpus: Corpus, model_path: &str) -> anyhow::Result<TextResult> {
        let windows = &corpus.tokens;
        self.printer.note(format!(
            "Text: {}, {} of {} tokens",
            corpus.origin,
            table::plural(windows.batch(), "window"),
            windows.sequence()
        ));
        let of = |model: &Decoder, options: &EvalOptions, label: &str| {
            under_bar(self.printer, label, |bar| {
                perplexity_by_position(model, windows, options, bar)
            })
        };
        let (measured, ranges) = of(self.model, &self.options, "Perplexity")?;
        let without_cache = EvalOptions {
            cache: None,
            ..self.options
        };
        let compare = |other: &Other<'_>| {
            let (theirs, their_ranges) = of(&other.model, &without_cache, "Perplexity of the other")?;
            let (compared, compared_at) = under_bar(self.printer, "Divergence", |bar| {
                divergence_by_position(self.model, &other.model, windows, &self.options, bar)
            })?;
            anyhow::Ok(Comparison {
                model_path: other.name.to_owned(),
                measured: theirs.into(),
                kl: compared.kl,
                top1_agreement: compared.top1_agreement,
                max_logit_difference: compared.max_logit_difference,
                positions: compared.positions,
                by_position: self.by_position.then(|| compared_ranges(their_ranges, compared_at)),
            })
        };
        Ok(TextResult {
            measured: measured.into(),
            windows: measured.windows,
            predictions: measured.predictions,
            seqlen: windows.sequence(),
            model_path: model_path.to_owned(),
            cache_dtype: self.options.cache.map(|format| format.to_string()),
            against: self.other.map(compare).transpose()?,
            by_position: self.by_position.then(|| measured_ranges(ranges)),
            text: corpus.origin,
        })
    }
}

fn read_windows(
    arguments: &EvalArguments,
    folder: &ModelFolder,
    config: &ModelConfig,
    printer: &Printer,
) -> anyhow::Result<Vec<Corpus>> {
    let defaults = DefaultWindows {
        sequence: default_window(config).0,
        most: None,
    };
    let corpora = arguments.text.read(defaults, folder.path(), config, printer)?;
    let Some(first) = corpora.first() else {
        // The group of the two is required.
        anyhow::bail!("give --dataset or --tokens");
    };
    warn_of_long_windows(first.tokens.sequence(), config, &mut |it| printer.warn(it));
    Ok(corpora)
}

fn describe(result: &TextResult, layers: usize) -> String {
    let mut table = Table::new(format!("{}, {layers} layers", result.model_path));
    let windows = table::plural(result.windows, "window");
    table.row("perplexity", result.measured.perplexity());
    table.row("mean nll", result.measured.nll());
    table.row(
        "text",
        format!("{windows} of {} tokens, {}", result.seqlen, result.text),
    );
    if let Some(ranges) = &result.by_position {
        by_position::describe(&mut table, ranges);
    }
    if let Some(format) = &result.cache_dtype {
        table.row("KV cache", format!("in {format}, what every token attends to"));
    }
    if let Some(other) = &result.against {
        table.row("against", other.model_path.clone());
        table.row("", format!("perplexity {}", other.measured.perplexity()));
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
        if let Some(ranges) = &other.by_position {
            by_position::describe_comparison(&mut table, ranges);
        }
    }
    table.to_string()
}
