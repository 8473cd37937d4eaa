//! `transmla eval --tasks`: accuracy on questions with known answers.

use std::fmt::Write as _;
use std::path::Path;
use std::time::{Instant, SystemTime};

use anyhow::{Context, bail};
use serde::Serialize;
use transmla_convert::{RecipeTasks, TaskPlan, parameters, read_tokenizer};
use transmla_core::ModelConfig;
use transmla_eval::ScoringOptions;
use transmla_eval::tasks::{PreparedTasks, RunFacts, TaskOptions, TaskRow, TaskScores};

use crate::advice::with_hint;
use crate::environment;
use crate::evaluation_bar::under_bar;
use crate::model::ModelFolder;
use crate::options::tasks::TaskArguments;
use crate::output_file::OutputFile;
use crate::printer::Printer;
use crate::table;
use crate::task_figures::score;

/// What a model that is asked and one that it is compared with are.
pub struct Models<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its files.
    pub folder: &'a ModelFolder,
    /// Opens a model's weights.
    pub open: &'a dyn Fn(&ModelFolder) -> anyhow::Result<transmla_core::Decoder>,
    /// What it is compared with.
    pub against: Option<(&'a str, &'a ModelFolder)>,
}

#[derive(Debug, Serialize)]
struct Found<'a> {
    model_path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<&'a str>,
    tasks: Vec<TaskRow>,
    requests: usize,
    seconds: f64,
}

pub fn run(
    arguments: &TaskArguments,
    asked: &RecipeTasks,
    models: &Models<'_>,
    scoring: ScoringOptions,
    printer: &Printer,
) -> anyhow::Result<()> {
    let started = Instant::now();
    check_output(arguments, models)?;
    let folder = models.folder.path();
    let config = ModelConfig::read(folder)?;
    let options = asked.options();
    let prepared = prepare(asked, folder, &config, printer)?;
    let requests = prepared.requests();
    printer.note(format!(
        "{} of {}",
        table::plural(requests, "request"),
        table::plural(prepared.tasks.len(), "task")
    ));
    let score = |folder: &ModelFolder, scoring: ScoringOptions, label: &str| -> anyhow::Result<TaskScores> {
        let model = (models.open)(folder)?;
        let model = match scoring.cache {
            Some(format) => model.for_cache(format)?,
            None => model,
        };
        Ok(under_bar(printer, label, |bar| prepared.score(&model, &scoring, bar))?)
    };
    let scores = score(models.folder, scoring, "Score")?;
    let without_cache = ScoringOptions { cache: None, ..scoring };
    let others = models.against.map(|(name, folder)| {
        let other = ModelConfig::read(folder.path())?;
        if other.vocab_size != config.vocab_size {
            bail!(
                "{name} has a vocabulary of {} tokens, {} one of {}; only models with the same one can be compared",
                other.vocab_size,
                models.name,
                config.vocab_size
            );
        }
        score(folder, without_cache, "Score the other")
    });
    let others = others.transpose()?;
    let seconds = started.elapsed().as_secs_f64();
    let facts = RunFacts {
        model_name: models.name.to_owned(),
        program: format!("transmla {}", env!("CARGO_PKG_VERSION")),
        date: since_1970(),
        seconds,
        max_length: config.max_position_embeddings,
        parameters: parameters(&config),
    };
    write(arguments, &options, &prepared, &scores, &facts)?;
    let found = Found {
        model_path: models.name,
        against: models.against.map(|(name, _)| name),
        tasks: prepared.rows(&scores, others.as_ref()),
        requests,
        seconds,
    };
    printer.result(&describe(&found), &found)
}

fn prepare(
    asked: &RecipeTasks,
    folder: &Path,
    config: &ModelConfig,
    printer: &Printer,
) -> anyhow::Result<PreparedTasks> {
    let plan = TaskPlan::new(asked, folder, Some(SystemTime::now()))?;
    let tokenizer = read_tokenizer(folder, &mut |it| printer.warn(it))?;
    let hub = environment::hub_options(printer);
    plan.read(config, &tokenizer, &hub).map_err(with_hint)
}

fn since_1970() -> f64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0.0, |since| since.as_secs_f64())
}

/// Whether results go into one file.
fn is_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "json")
}

fn output_file<'a>(path: &'a Path) -> OutputFile<'a> {
    OutputFile {
        option: "--output",
        path,
        force: false,
    }
}

/// Finds out that results cannot be written before they are there.
fn check_output(arguments: &TaskArguments, models: &Models<'_>) -> anyhow::Result<()> {
    let Some(path) = &arguments.output_path else {
        return Ok(());
    };
    if !is_file(path) {
        return std::fs::create_dir_all(path).with_context(|| format!("cannot create --output {}", path.display()));
    }
    if arguments.log_samples {
        bail!("--log-samples writes a file for each task: give --output a folder");
    }
    let file = output_file(path);
    file.check_free()?;
    file.check_not_of_model(models.name, models.folder.path())
}

fn write(
    arguments: &TaskArguments,
    options: &TaskOptions,
    prepared: &PreparedTasks,
    scores: &TaskScores,
    facts: &RunFacts,
) -> anyhow::Result<()> {
    let Some(path) = &arguments.output_path else {
        return Ok(());
    };
    let results = prepared.results_json(scores, options, facts);
    if is_file(path) {
        return output_file(path).write(results.as_bytes());
    }
    // The harness tells runs apart by when they were.
    let date = date_of(facts.date);
    output_file(&path.join(format!("results_{date}.json"))).write(results.as_bytes())?;
    if arguments.log_samples {
        for (task, text) in prepared.samples_jsonl(scores) {
            output_file(&path.join(format!("samples_{task}_{date}.jsonl"))).write(text.as_bytes())?;
        }
    }
    Ok(())
}

/// As in `2026-01-31T23-59-59.000001`, in UTC.
fn date_of(seconds: f64) -> String {
    let (whole, micros) = (seconds.floor() as i64, ((seconds - seconds.floor()) * 1e6) as i64);
    let (days, rest) = (whole.div_euclid(86_400), whole.rem_euclid(86_400));
    // Days to a date (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + 400 * era + i64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}-{minute:02}-{second:02}.{micros:06}")
}

fn describe(found: &Found<'_>) -> String {
    let mut text = found.model_path.to_owned();
    if let Some(other) = found.against {
        let _ = write!(text, " against {other}");
    }
    let _ = write!(
        text,
        "\n  {:<24} {:>7} {:>5}  {:<16} value",
        "task", "records", "shots", "metric"
    );
    let mut line = |task: &str, records: &str, shots: &str, metric: &str, value: &str| {
        let _ = write!(text, "\n  {task:<24} {records:>7} {shots:>5}  {metric:<16} {value}");
    };
    for row in found.tasks.iter().filter(|row| !row.is_part) {
        let shots = row.shots.map_or(String::new(), |shots| shots.to_string());
        for (index, figure) in row.figures.iter().enumerate() {
            match index {
                0 => line(
                    &row.task,
                    &row.records.to_string(),
                    &shots,
                    figure.metric.name(),
                    &score(figure),
                ),
                _ => line("", "", "", figure.metric.name(), &score(figure)),
            }
            if let Some(other) = row.against.as_ref().and_then(|other| other.figures.get(index)) {
                line("", "", "", &format!("{}, other", figure.metric.name()), &score(other));
            }
        }
        if let Some(other) = &row.against {
            line("", "", "", "right here only", &other.lost.to_string());
            line("", "", "", "right there only", &other.gained.to_string());
            if let Some(kl) = other.kl {
                line("", "", "", "KL of answers", &format!("{kl:.4} nats"));
            }
        }
    }
    let _ = write!(
        text,
        "\n  {} in {}\n",
        table::plural(found.requests, "request"),
        table::seconds(found.seconds)
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_the_calendar() {
        assert_eq!(date_of(0.0), "1970-01-01T00-00-00.000000");
        assert_eq!(date_of(951_827_696.5), "2000-02-29T12-34-56.500000");
        assert_eq!(date_of(1_767_225_599.0), "2025-12-31T23-59-59.000000");
    }
}
