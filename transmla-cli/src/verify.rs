//! `transmla verify`: whether a saved model is what other programs will run.

use std::path::PathBuf;

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use transmla_convert::{SavedForm, WithoutLatentNorms, check_saved};
use transmla_core::{LayeredModel, ModelConfig, TokenBatch};
use transmla_eval::{Divergence, EvalOptions, divergence};

use crate::arguments::{ComputeArguments, ModelArguments, OutputArguments};
use crate::model::ModelFolder;
use crate::printer::Printer;
use crate::table::Table;
use crate::text::{Corpus, TextSource, read_tokenizer};
use crate::{memory, values};

/// Check a converted model as it was saved: its files against each other, and what other programs will compute.
///
/// The model is run with its latent norms applied as stock code does, and compared with the same weights without norms,
/// and with the original. Exits with 1 if something is wrong.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VerifyArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// The original model
    #[arg(long, value_name = "PATH|ID")]
    against: Option<String>,

    /// Text: wikitext2, ptb, c4, alpaca, stories, or a file or folder [default: random token ids]
    #[arg(long, value_name = "NAME|PATH", conflicts_with = "tokens")]
    dataset: Option<TextSource>,

    /// Column that is the text, if the file has columns
    #[arg(long, value_name = "NAME", requires = "dataset")]
    text_column: Option<String>,

    /// Exact token ids: `input_ids` [windows, seq] of a safetensors file
    #[arg(long, value_name = "FILE")]
    tokens: Option<PathBuf>,

    /// Tokens per window
    #[arg(long, value_name = "N", default_value = "128", value_parser = values::positive)]
    seqlen: usize,

    /// Windows to compare on
    #[arg(long, value_name = "K", default_value = "4", value_parser = values::positive)]
    max_windows: usize,

    /// Fail if the divergence from the original is larger, in nats per token
    #[arg(long, value_name = "NATS", requires = "against")]
    max_kl: Option<f64>,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    output: OutputArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla verify --model-path outputs
  transmla verify --model-path outputs --against ./model --dataset wikitext2 --max-kl 0.5";

/// Norms that change predictions by more than this, in nats per token, are no identity.
const LARGEST_KL: f64 = 1e-2;

#[derive(Debug, Serialize)]
struct Verification {
    model_path: String,
    passed: bool,
    checks: Vec<CheckResult>,
    text: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    latent_norms: Option<Comparison>,
    #[serde(skip_serializing_if = "Option::is_none")]
    original: Option<Comparison>,
}

#[derive(Debug, Serialize)]
struct CheckResult {
    name: &'static str,
    passed: bool,
    found: String,
}

#[derive(Debug, Serialize)]
struct Comparison {
    max_logit_difference: f64,
    kl: f64,
    top1_agreement: f64,
    positions: usize,
}

impl From<Divergence> for Comparison {
    fn from(it: Divergence) -> Self {
        Self {
            max_logit_difference: it.max_logit_difference,
            kl: it.kl,
            top1_agreement: it.top1_agreement,
            positions: it.positions,
        }
    }
}

pub fn run(arguments: &VerifyArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let folder = arguments.model.locate(&printer)?;
    let config = ModelConfig::read(folder.path())?;
    let (form, checks) = check_saved(folder.path(), &config)?;
    let mut checks: Vec<CheckResult> = checks
        .into_iter()
        .map(|check| CheckResult {
            name: check.name,
            passed: check.passed,
            found: check.found,
        })
        .collect();
    let windows = windows(arguments, &folder, &config, &printer)?;
    let other = arguments.against.as_ref().map(|other| {
        let folder = ModelFolder::locate(other, &arguments.model.revision, &printer)?;
        folder.open(&arguments.compute)
    });
    let other = other.transpose()?;
    let model = folder.open(&arguments.compute)?;
    let options = memory::eval_options(1, arguments.compute.max_memory);
    let latent_norms = match form {
        SavedForm::Stock => {
            let plain = WithoutLatentNorms(&model);
            Some(compare(&plain, &model, &windows.tokens, &options, &printer)?)
        }
        SavedForm::StockWithNorms | SavedForm::Family => None,
    };
    let original = other.map(|other| compare(&other, &model, &windows.tokens, &options, &printer));
    let original = original.transpose()?;
    if let Some(found) = &latent_norms {
        checks.push(CheckResult {
            name: "norms",
            passed: found.kl <= LARGEST_KL,
            found: format!("the identity: {}", describe_comparison(found)),
        });
    }
    if let (Some(found), Some(most)) = (&original, arguments.max_kl) {
        checks.push(CheckResult {
            name: "--max-kl",
            passed: found.kl <= most,
            found: format!("{:.4} nats per token, at most {most}", found.kl),
        });
    }
    let failed: Vec<&str> = checks
        .iter()
        .filter(|check| !check.passed)
        .map(|check| check.name)
        .collect();
    let failed = failed.join(", ");
    let result = Verification {
        model_path: arguments.model.model_path.clone(),
        passed: failed.is_empty(),
        checks,
        text: windows.origin,
        latent_norms,
        original,
    };
    printer.result(&describe(&result, arguments), &result)?;
    if !failed.is_empty() {
        bail!("{} is not sound: {failed}", result.model_path);
    }
    Ok(())
}

fn compare(
    first: &dyn LayeredModel,
    second: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    printer: &Printer,
) -> anyhow::Result<Comparison> {
    let bar = printer.bar("Divergence");
    let compared = divergence(first, second, windows, options, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    Ok(compared?.into())
}

fn windows(
    arguments: &VerifyArguments,
    folder: &ModelFolder,
    config: &ModelConfig,
    printer: &Printer,
) -> anyhow::Result<Corpus> {
    let (sequence, most) = (arguments.seqlen, arguments.max_windows);
    if let Some(file) = &arguments.tokens {
        return Corpus::from_file(file, Some(most), None, config, printer);
    }
    if let Some(source) = &arguments.dataset {
        let (tokenizer, column) = (
            read_tokenizer(folder.path(), printer)?,
            arguments.text_column.as_deref(),
        );
        return Corpus::windows(source, column, sequence, Some(most), &tokenizer, config, printer);
    }
    // A linear congruential generator (Knuth's MMIX): the same ids everywhere.
    let mut state = 1u64;
    let ids = (0..most * sequence).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % config.vocab_size as u64) as i64
    });
    Ok(Corpus {
        tokens: TokenBatch::from_ids(ids.collect(), most, sequence).map_err(anyhow::Error::msg)?,
        origin: "random token ids".into(),
    })
}

fn describe(result: &Verification, arguments: &VerifyArguments) -> String {
    let mut table = Table::new(format!("{}: {}", result.model_path, verdict(result.passed)));
    for check in &result.checks {
        let found = match check.passed {
            true => check.found.clone(),
            false => format!("WRONG: {}", check.found),
        };
        table.row(check.name, found);
    }
    if let (Some(original), Some(path)) = (&result.original, &arguments.against) {
        table.row("original", format!("{path}: {}", describe_comparison(original)));
    }
    if result.latent_norms.is_some() || result.original.is_some() {
        table.row("on", result.text.clone());
    }
    table.to_string()
}

fn verdict(passed: bool) -> &'static str {
    if passed { "sound" } else { "not sound" }
}

fn describe_comparison(it: &Comparison) -> String {
    format!(
        "logits within {:.1e}, KL {:.1e}, same top token at {:.2} % of {} positions",
        it.max_logit_difference,
        it.kl,
        100.0 * it.top1_agreement,
        it.positions
    )
}
