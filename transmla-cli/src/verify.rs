//! `transmla verify`: whether a saved model is what other programs will run.

use anyhow::bail;
use clap::Args;
use serde::Serialize;
use transmla_convert::{Corpus, SavedForm, WithoutLatentNorms, check_saved, eval_options};
use transmla_core::model::{NumberFormat, RoundedModel};
use transmla_core::{Decoder, LayeredModel, ModelConfig, TokenBatch};
use transmla_eval::{Divergence, EvalError, EvalOptions, divergence, perplexity};

use crate::evaluation_bar::under_bar;
use crate::model::ModelFolder;
use crate::options::compute::ComputeArguments;
use crate::options::model::ModelArguments;
use crate::options::model_name::model_name;
use crate::options::output::OutputArguments;
use crate::options::windows::{DefaultWindows, WindowArguments};
use crate::printer::Printer;
use crate::table::Table;

/// Check a converted model as it was saved: its files against each other, and what other programs will compute.
///
/// The model is run with its latent norms applied as stock code does, and compared with the same weights without norms,
/// and with the original; then as engines load it, in bf16, in fp16 and in 8-bit blocks (Q8_0). Exits with 1 if something
/// is wrong.
#[derive(Debug, Args)]
#[command(
    mut_arg("dataset", |argument| argument.help(DATASET)),
    mut_arg("seqlen", |argument| argument.help("Tokens per window [default: 128, or as in --tokens]")),
    mut_arg("max_windows", |argument| argument.help("Maximum number of windows [default: 4]")),
    after_help = EXAMPLES
)]
pub struct VerifyArguments {
    #[command(flatten)]
    model: ModelArguments,

    /// The original model
    #[arg(long, value_name = "PATH|ID", value_parser = model_name)]
    against: Option<String>,

    #[command(flatten)]
    text: WindowArguments,

    /// Fail if the divergence from the original is larger, in nats per token
    #[arg(long, value_name = "NATS", requires = "against")]
    max_kl: Option<f64>,

    #[command(flatten)]
    compute: ComputeArguments,

    #[command(flatten)]
    output: OutputArguments,
}

const DATASET: &str = "Text: wikitext2, ptb, c4, alpaca, stories, or a file or folder [default: random token ids]";

/// Tokens per window, and windows, where they are not given.
const SEQLEN: usize = 128;
const WINDOWS: usize = 4;

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
    #[serde(skip_serializing_if = "Option::is_none")]
    perplexity: Option<f64>,
    formats: Vec<InFormat>,
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

/// The model in a number format that an engine may load it in, compared with the same in fp32.
#[derive(Debug, Serialize)]
struct InFormat {
    format: String,
    passed: bool,
    /// Nothing if the output is not finite.
    kl: Option<f64>,
    top1_agreement: Option<f64>,
    /// Nothing without a text, or if the output is not finite.
    perplexity: Option<f64>,
    /// What `kl` and the relative change of the perplexity may be.
    limit: f64,
}

/// How much a format may change predictions, in nats per token, and the perplexity, relatively.
fn limit(format: NumberFormat) -> f64 {
    match format {
        NumberFormat::Fp16 => 5e-3,
        NumberFormat::Bf16 | NumberFormat::Q8_0 => 2e-2,
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
        let model = folder.open(&arguments.compute)?;
        // A folder that was unpacked is there for as long as it is read from.
        Ok::<(ModelFolder, Decoder), anyhow::Error>((folder, model))
    });
    let other = other.transpose()?;
    let model = folder.open(&arguments.compute)?;
    let options = eval_options(1, arguments.compute.max_memory());
    let latent_norms = match form {
        SavedForm::Stock => {
            let plain = WithoutLatentNorms(&model);
            Some(compare(&plain, &model, &windows.tokens, &options, &printer)?)
        }
        SavedForm::StockWithNorms | SavedForm::Family => None,
    };
    let original = other.map(|(_folder, other)| compare(&other, &model, &windows.tokens, &options, &printer));
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
    let in_formats = InFormats {
        model: &model,
        windows: &windows.tokens,
        options: &options,
        printer: &printer,
        perplexity: arguments
            .text
            .is_given()
            .then(|| measure(&model, &windows.tokens, &options, &printer))
            .transpose()?,
    };
    let formats: Vec<InFormat> = NumberFormat::ALL
        .iter()
        .map(|format| in_formats.compare(*format))
        .collect::<anyhow::Result<_>>()?;
    let failed = checks.iter().filter(|check| !check.passed).map(|check| check.name);
    let unfit = formats.iter().filter(|it| !it.passed).map(|it| it.format.as_str());
    let failed: Vec<&str> = failed.chain(unfit).collect();
    let failed = failed.join(", ");
    let perplexity = in_formats.perplexity;
    let result = Verification {
        model_path: arguments.model.model_path.clone(),
        passed: failed.is_empty(),
        checks,
        text: windows.origin,
        latent_norms,
        original,
        perplexity,
        formats,
    };
    printer.result(&describe(&result, arguments), &result)?;
    if !failed.is_empty() {
        bail!("{} is not sound: {failed}", result.model_path);
    }
    Ok(())
}

/// A saved model and what it is compared with itself on.
struct InFormats<'a> {
    model: &'a dyn LayeredModel,
    windows: &'a TokenBatch,
    options: &'a EvalOptions,
    printer: &'a Printer,
    /// Of the model as it was saved, if there is a text.
    perplexity: Option<f64>,
}

impl InFormats<'_> {
    fn compare(&self, format: NumberFormat) -> anyhow::Result<InFormat> {
        let (model, limit) = (self.model, limit(format));
        let rounded = RoundedModel { model, format };
        let mut found = InFormat {
            format: format.to_string(),
            passed: false,
            kl: None,
            top1_agreement: None,
            perplexity: None,
            limit,
        };
        let label = format!("Compare in {format}");
        let compared = under_bar(self.printer, &label, |bar| {
            divergence(model, &rounded, self.windows, self.options, bar)
        });
        match compared {
            // What overflows in the format is a finding, not a failure of the check.
            Err(EvalError::NotFinite { .. }) => return Ok(found),
            other => {
                let compared = other?;
                (found.kl, found.top1_agreement) = (Some(compared.kl), Some(compared.top1_agreement));
                found.passed = compared.kl <= limit;
            }
        }
        if let Some(expected) = self.perplexity {
            let perplexity = measure(&rounded, self.windows, self.options, self.printer)?;
            found.perplexity = Some(perplexity);
            found.passed &= (perplexity / expected - 1.0).abs() <= limit;
        }
        Ok(found)
    }
}

fn measure(
    model: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    printer: &Printer,
) -> anyhow::Result<f64> {
    let measured = under_bar(printer, "Perplexity", |bar| perplexity(model, windows, options, bar))?;
    Ok(measured.perplexity)
}

fn compare(
    first: &dyn LayeredModel,
    second: &dyn LayeredModel,
    windows: &TokenBatch,
    options: &EvalOptions,
    printer: &Printer,
) -> anyhow::Result<Comparison> {
    let compared = under_bar(printer, "Divergence", |bar| {
        divergence(first, second, windows, options, bar)
    })?;
    Ok(compared.into())
}

fn windows(
    arguments: &VerifyArguments,
    folder: &ModelFolder,
    config: &ModelConfig,
    printer: &Printer,
) -> anyhow::Result<Corpus> {
    let defaults = DefaultWindows {
        sequence: SEQLEN,
        most: Some(WINDOWS),
    };
    if arguments.text.has_several() {
        bail!("verify compares on one text: give one --dataset; `transmla eval` takes several");
    }
    if let Some(corpus) = arguments.text.read(defaults, folder.path(), config, printer)?.pop() {
        return Ok(corpus);
    }
    let (sequence, windows) = (arguments.text.seqlen_or(SEQLEN), arguments.text.max_windows_or(WINDOWS));
    // A linear congruential generator (Knuth's MMIX): the same ids everywhere.
    let mut state = 1u64;
    let ids = (0..windows * sequence).map(|_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) % config.vocab_size as u64) as i64
    });
    Ok(Corpus {
        tokens: TokenBatch::from_ids(ids.collect(), windows, sequence).map_err(anyhow::Error::msg)?,
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
    if let Some(perplexity) = result.perplexity {
        table.row("perplexity", format!("{perplexity:.4} in fp32"));
    }
    for format in &result.formats {
        table.row(
            &format!("in {}", format.format),
            describe_format(format, result.perplexity),
        );
    }
    table.row("on", result.text.clone());
    table.to_string()
}

fn describe_format(it: &InFormat, expected: Option<f64>) -> String {
    let (Some(kl), Some(agreement)) = (it.kl, it.top1_agreement) else {
        return format!("WRONG: the output is not finite; do not load it in {}", it.format);
    };
    let mut text = format!("KL {kl:.1e}, same top token at {:.2} %", 100.0 * agreement);
    if let (Some(perplexity), Some(expected)) = (it.perplexity, expected) {
        let change = 100.0 * (perplexity / expected - 1.0);
        text += &format!(", perplexity {perplexity:.4} ({change:+.2} %)");
    }
    match it.passed {
        true => text,
        false => format!(
            "WRONG: {text}; at most {} nats or {} % are expected; do not load it in {}",
            it.limit,
            100.0 * it.limit,
            it.format
        ),
    }
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
