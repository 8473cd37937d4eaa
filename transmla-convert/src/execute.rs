//! Planned conversions, with the model and the text at hand.

use std::path::Path;

use transmla_core::checkpoint::{CheckpointWriter, Claim};
use transmla_core::{Decoder, LayeredModel, Residency, TokenBatch};
use transmla_eval::tasks::TaskScores;

use crate::output::card::{ModelCard, model_card};
use crate::output::companions::{write_companions, write_rest};
use crate::output::gguf::{GgufOptions, check_gguf, write_gguf};
use crate::output::kept_statistics::StatisticsFolder;
use crate::output::manifest::{check_replaceable, list_files};
use crate::output::resume_cache::{ResumeCache, forget};
use crate::output::room::{DiskNeeds, check_space};
use crate::solve::evaluation::{Evaluation, Questions, ask, evaluate};
use crate::solve::method;
use crate::solve::method::{Job, LayerStore, Output, Solver};
use crate::spec::engine::GGUF_FILE;
use crate::spec::error::ConvertError;
use crate::spec::options::{FileFormat, MethodName};
use crate::spec::plan::Plan;
use crate::spec::report::{Finished, Observer, Report, Stage};

/// Everything that a planned conversion needs.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// What to do.
    pub plan: &'a Plan,
    /// The model to convert.
    pub source: &'a Decoder,
    /// Calibration text, `[samples, seq]`.
    pub calibration: &'a TokenBatch,
    /// Text that the perplexities are measured on.
    pub evaluation: Option<Evaluation<'a>>,
    /// Questions that accuracy is measured on.
    pub questions: Option<Questions<'a>>,
    /// Folder to make.
    pub save_path: &'a Path,
    /// Whether an existing folder is replaced, if it holds nothing but what a conversion has written.
    pub replace: bool,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
    /// What the model card says, if there is to be one; it is written with what was measured.
    pub card: Option<ModelCard<'a>>,
}

/// Several planned conversions of one model.
#[derive(Debug, Clone, Copy)]
pub struct Requests<'a> {
    /// The model to convert.
    pub source: &'a Decoder,
    /// Text that perplexities are measured on.
    pub evaluation: Option<Evaluation<'a>>,
    /// Questions that accuracy is measured on.
    pub questions: Option<Questions<'a>>,
    /// The models to make.
    pub entries: &'a [Entry<'a>],
}

/// One of the models that [`Requests`] ask for.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    /// What to do; planned for the same source.
    pub plan: &'a Plan,
    /// Calibration text, `[samples, seq]`. What follows from a text is shared by the entries that have the same.
    pub calibration: &'a TokenBatch,
    /// Folder to make.
    pub save_path: &'a Path,
    /// Whether an existing folder is replaced, if it holds nothing but what a conversion has written.
    pub replace: bool,
    /// Whether the folder is wanted. One that is not never appears: its files are written beside it, read back, measured
    /// and removed.
    pub keep: bool,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
    /// What the model card says, if there is to be one; it is written with what was measured.
    pub card: Option<ModelCard<'a>>,
}

/// Converts a model and writes it.
///
/// The folder appears as the last step, complete; whatever fails before leaves its place as it was (a mount point cannot be
/// renamed, and is filled file by file instead). The perplexity of the converted model is that of the written files, read back.
/// Its `transmla.toml` lists them.
///
/// # Errors
/// Bad weights or text; a folder that exists, holds something else, has another conversion under way, lacks room or cannot be
/// written; a source that changes while it is read; a failing device.
pub fn convert(request: &Request<'_>, observer: &mut dyn Observer) -> Result<Report, ConvertError> {
    let entry = Entry {
        plan: request.plan,
        calibration: request.calibration,
        save_path: request.save_path,
        replace: request.replace,
        keep: true,
        extra_files: request.extra_files,
        card: request.card,
    };
    let alone = Requests {
        source: request.source,
        evaluation: request.evaluation,
        questions: request.questions,
        entries: &[entry],
    };
    Ok(convert_all(&alone, observer)?.swap_remove(0))
}

/// Makes several models of one; the reports are in the order of the entries.
///
/// The original is measured once. Entries of the published method that differ in ranks, norms or form alone share one
/// decoupling, one perplexity after it and one second pass; those of the coherent method share the gradients of the
/// loss. Each model is the same, to the bit, as one that [`convert()`] makes alone.
///
/// # Errors
/// As for [`convert()`]. Models that were complete before the error stay, if they were to be kept.
pub fn convert_all(requests: &Requests<'_>, observer: &mut dyn Observer) -> Result<Vec<Report>, ConvertError> {
    let entries = requests.entries;
    // Released last: nobody else comes to these places before everything is there or gone.
    let _claims: Vec<Claim> = entries
        .iter()
        .map(|entry| Claim::of(entry.save_path))
        .collect::<Result<_, _>>()?;
    let needs = |entry: &Entry<'_>| DiskNeeds::of(entry.plan, entry.calibration.batch(), entry.calibration.sequence());
    check_space(entries.iter().map(|entry| (entry.save_path, needs(entry))))?;
    let mut writers = requests.writers()?;
    let mut caches = requests.earlier_layers(observer)?;
    let original = evaluate(requests.evaluation, requests.source, Stage::EvaluateOriginal, observer)?;
    let answers = ask(requests.questions, requests.source, Stage::AskOriginal, observer)?;
    let mut reports = vec![Report::default(); entries.len()];
    let groups = requests.groups();
    let mut workers = requests.workers(&groups)?;
    for group in groups {
        observer.converting(&group);
        let mut taken: Vec<CheckpointWriter> = group.iter().filter_map(|index| writers[*index].take()).collect();
        let found = requests.solve(&group, (&mut taken, &mut caches), &mut workers, observer)?;
        for ((index, writer), report) in group.into_iter().zip(taken).zip(found) {
            let report = Report { original, ..report };
            reports[index] = requests.finish(&entries[index], writer, (report, answers.as_ref()), observer)?;
            observer.converted(index, &reports[index]);
        }
    }
    Ok(reports)
}

/// A method at work, and the statistics that it keeps.
struct Worker<'a> {
    name: MethodName,
    solver: Box<dyn Solver>,
    statistics: StatisticsFolder<'a>,
}

impl<'a> Requests<'a> {
    fn job(&self, entry: &Entry<'a>) -> Job<'a> {
        Job {
            plan: entry.plan,
            source: self.source,
            calibration: entry.calibration,
            evaluation: self.evaluation,
        }
    }

    /// Checks every entry and begins its folder.
    fn writers(&self) -> Result<Vec<Option<CheckpointWriter>>, ConvertError> {
        let writer = |entry: &Entry<'_>| {
            if entry.replace {
                check_replaceable(entry.save_path)?;
            }
            let (plan, recipe) = (entry.plan, entry.plan.recipe());
            entry.calibration.check_vocabulary(self.source.config().vocab_size)?;
            method(recipe.method).check_text(plan, entry.calibration)?;
            check_gguf(plan, self.source.checkpoint().folder())?;
            let writer = CheckpointWriter::create(
                entry.save_path,
                plan.tensors(),
                recipe.dtype,
                recipe.max_shard_size,
                entry.replace,
            )?;
            write_companions(self.source, &writer)?;
            Ok(Some(writer))
        };
        self.entries.iter().map(writer).collect()
    }

    /// The resume caches of those entries that an earlier run has left layers for, and how many of them are of use.
    fn earlier_layers(&self, observer: &mut dyn Observer) -> Result<Vec<Option<ResumeCache>>, ConvertError> {
        let cache = |(index, entry): (usize, &Entry<'a>)| {
            if !ResumeCache::is_there(entry.save_path)? {
                return Ok(None);
            }
            let cache = ResumeCache::of(&self.job(entry), entry.save_path)?;
            let layers = entry.plan.source().num_hidden_layers;
            observer.found_layers(index, cache.saved_from(0).min(layers), layers);
            Ok(Some(cache))
        };
        self.entries.iter().enumerate().map(cache).collect()
    }

    /// Entries, by index, that go through the model together, in the order of their first ones.
    fn groups(&self) -> Vec<Vec<usize>> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (index, entry) in self.entries.iter().enumerate() {
            let name = entry.plan.recipe().method;
            let shares = |group: &&mut Vec<usize>| {
                let first = &self.entries[group[0]];
                first.plan.recipe().method == name && method(name).shares_passes(&self.job(first), &self.job(entry))
            };
            match groups.iter_mut().find(shares) {
                Some(group) => group.push(index),
                None => groups.push(vec![index]),
            }
        }
        groups
    }

    /// One for each method. Its statistics lie beside the model that it makes last: those of a model go when it stands.
    fn workers(&self, groups: &[Vec<usize>]) -> Result<Vec<Worker<'a>>, ConvertError> {
        let mut workers: Vec<Worker<'a>> = Vec::new();
        for index in groups.iter().flatten().rev() {
            let entry = &self.entries[*index];
            let name = entry.plan.recipe().method;
            if workers.iter().all(|worker| worker.name != name) {
                workers.push(Worker {
                    name,
                    solver: method(name).solver(),
                    statistics: StatisticsFolder::beside(entry.save_path, self.source)?,
                });
            }
        }
        Ok(workers)
    }

    /// Writes the attention of every entry of a group; gives what is known of each before it is measured.
    fn solve(
        &self,
        group: &[usize],
        (writers, known): (&mut [CheckpointWriter], &mut [Option<ResumeCache>]),
        workers: &mut [Worker<'a>],
        observer: &mut dyn Observer,
    ) -> Result<Vec<Report>, ConvertError> {
        let jobs = group.iter().map(|index| self.job(&self.entries[*index]));
        let mut caches = group
            .iter()
            .zip(jobs.clone())
            .map(|(index, job)| match known[*index].take() {
                Some(cache) => Ok(cache),
                None => ResumeCache::of(&job, self.entries[*index].save_path),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let name = self.entries[group[0]].plan.recipe().method;
        let mut outputs: Vec<Output<'_>> = jobs
            .zip(writers)
            .zip(&mut caches)
            .map(|((job, writer), cache)| Output {
                job,
                writer,
                layers: cache as &mut dyn LayerStore,
            })
            .collect();
        let worker = workers.iter_mut().find(|worker| worker.name == name);
        worker.map_or_else(
            || Ok(Vec::new()),
            |worker| worker.solver.solve(&mut outputs, &mut worker.statistics, observer),
        )
    }

    /// Writes the rest of an entry whose attention is written, measures it and puts it in its place, if it is to be kept.
    /// Gives the report with what was measured, in comparison with the original's answers.
    fn finish(
        &self,
        entry: &Entry<'_>,
        mut writer: CheckpointWriter,
        (report, answers): (Report, Option<&TaskScores>),
        observer: &mut dyn Observer,
    ) -> Result<Report, ConvertError> {
        write_rest(entry.plan, self.source, entry.extra_files, &mut writer)?;
        writer.finish()?;
        let device = self.source.device();
        let converted = Decoder::open(writer.work_folder(), device, Residency::Streamed)?;
        let measured = evaluate(self.evaluation, &converted, Stage::EvaluateConverted, observer)?;
        let answered = ask(self.questions, &converted, Stage::AskConverted, observer)?;
        drop(converted);
        let tasks = match (self.questions, answers) {
            (Some(questions), Some(answers)) => questions.tasks.rows(answers, answered.as_ref()),
            _ => Vec::new(),
        };
        let report = Report {
            mla: measured,
            tasks,
            ..report
        };
        if let Some(card) = &entry.card {
            writer.write_file("README.md", model_card(entry.plan, card, &report).as_bytes())?;
        }
        if entry.keep {
            let finished = Finished {
                plan: entry.plan,
                source: self.source,
                folder: writer.work_folder(),
                report: &report,
            };
            for (name, contents) in observer.finished(&finished) {
                writer.write_file(&name, &contents)?;
            }
        }
        let recipe = entry.plan.recipe();
        if recipe.file_format() == FileFormat::Gguf {
            let folder = writer.work_folder();
            let options = GgufOptions {
                pre_tokenizer: recipe.pre_tokenizer.as_deref(),
                replace: true,
                ..GgufOptions::default()
            };
            write_gguf(folder, &folder.join(GGUF_FILE), &options, device)?;
            writer.drop_weights()?;
        }
        if entry.keep {
            list_files(&writer)?;
            if entry.replace {
                // Much may have come there in the meantime.
                check_replaceable(entry.save_path)?;
            }
            writer.commit()?;
        }
        forget(entry.save_path)?;
        Ok(report)
    }
}
