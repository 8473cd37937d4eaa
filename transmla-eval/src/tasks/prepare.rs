//! Tasks as requests: records read, prompts made, texts cut into tokens.

use transmla_calib::{Record, RecordSource};

use crate::likelihood::Request;
use crate::tasks::catalogue::{Part, Selected};
use crate::tasks::error::TaskError;
use crate::tasks::item::Item;
use crate::tasks::needle::Needles;
use crate::tasks::pair::Pairs;
use crate::tasks::prepared::{ModelText, PreparedItem, PreparedTask, TaskData, TaskOptions};
use crate::tasks::prompt::Prompter;
use crate::tasks::python_random::PythonRandom;
use crate::tasks::spec::{FewshotRule, TaskKind, TaskSpec};
use crate::tasks::template::Templates;

/// Seed of the examples, as lm-evaluation-harness has it.
const SEED: u64 = 1234;

/// Everything that was asked for.
#[derive(Debug, Clone)]
pub struct PreparedTasks {
    /// As selected.
    pub selected: Vec<Selected>,
    /// Every task with a dataset, each once, in that order.
    pub tasks: Vec<PreparedTask>,
}

impl PreparedTasks {
    /// Reads the datasets and makes the requests.
    ///
    /// # Errors
    /// Datasets that cannot be had or do not fit their tasks, too few examples, and requests that no model can be asked.
    pub fn new(
        selected: Vec<Selected>,
        data: &TaskData,
        model: &ModelText<'_>,
        options: &TaskOptions,
    ) -> Result<Self, TaskError> {
        if options.apply_chat_template && model.template.is_none() {
            return Err(TaskError::NoChatTemplate);
        }
        let mut tasks: Vec<PreparedTask> = Vec::new();
        for selected in &selected {
            let parts: Vec<&Part> = match selected {
                Selected::Task(part) => vec![part],
                Selected::Parts { groups, .. } => groups.iter().flat_map(|(.., parts)| parts).collect(),
                Selected::Needle => {
                    let needles = Needles::new(model, options)?;
                    tasks.extend(needles.tasks);
                    continue;
                }
            };
            for part in parts {
                if !tasks.iter().any(|task| task.part.name == part.name) {
                    tasks.push(prepare(part, data, model, options)?);
                }
            }
        }
        Ok(Self { selected, tasks })
    }

    /// Number of requests.
    pub fn requests(&self) -> usize {
        let items = self.tasks.iter().flat_map(|task| &task.items);
        items.map(|item| item.requests.len()).sum()
    }
}

fn prepare(
    part: &Part,
    data: &TaskData,
    model: &ModelText<'_>,
    options: &TaskOptions,
) -> Result<PreparedTask, TaskError> {
    let spec = &part.spec;
    let templates = Templates::of(part)?;
    let source = RecordSource {
        dataset: spec.dataset.clone(),
        config: spec.config.clone(),
        revision: spec.revision.clone(),
        file: spec.file.clone(),
    };
    let load = |split: &str| source.load(split, data.root.as_deref(), &data.hub);
    let records = load(&spec.split)?;
    let mut examples = Examples::new(part, &templates, options.num_fewshot, &load)?;
    let pairs = Pairs {
        tokenizer: model.tokenizer,
        start: model.tokenizer.start_token(),
    };
    let bad = |record: usize, problem: String| TaskError::Record {
        task: part.name.clone(),
        split: spec.split.clone(),
        record,
        problem,
    };
    let asked = asked(records.len(), options.limit);
    let mut items = Vec::with_capacity(asked);
    for (index, record) in records.iter().take(asked).enumerate() {
        let item = Item::of(spec, &templates, record).map_err(|problem| bad(index, problem))?;
        let description = templates
            .render("description", record)
            .map_err(|problem| bad(index, problem))?;
        let prompter = Prompter {
            system_instruction: options.system_instruction.as_deref(),
            description,
            delimiter: &spec.target_delimiter,
            template: model.template.filter(|_| options.apply_chat_template),
            multiturn: options.fewshot_as_multiturn,
        };
        let shots = examples.of(record);
        let context = |question: &String| prompter.context(&shots, question);
        let contexts: Vec<String> = item.questions.iter().map(context).collect::<Result<_, _>>()?;
        // A chat ends where the answer begins.
        let delimiter = match (spec.kind, options.apply_chat_template) {
            (TaskKind::LastWord, _) | (_, true) => "",
            _ => spec.target_delimiter.as_str(),
        };
        let text = |choice: usize| {
            let of = |texts: &[String]| texts.get(choice).or(texts.first()).cloned().unwrap_or_default();
            (of(&contexts), format!("{delimiter}{}", of(&item.answers)))
        };
        let texts: Vec<(String, String)> = (0..item.choices()).map(text).collect();
        let requests = texts
            .iter()
            .map(|(context, continuation)| request(part, index, &pairs, (context, continuation), model.max_length))
            .collect::<Result<_, _>>()?;
        items.push(PreparedItem {
            record: record.clone(),
            requests,
            lengths: item.answers.iter().map(|answer| answer.chars().count()).collect(),
            gold: item.gold,
            texts,
        });
    }
    Ok(PreparedTask {
        part: part.clone(),
        shots: options.num_fewshot,
        records: records.len(),
        items,
    })
}

/// A request that every model with these tokens can be asked.
fn request(
    part: &Part,
    record: usize,
    pairs: &Pairs<'_>,
    (context, continuation): (&str, &str),
    max_length: usize,
) -> Result<Request, TaskError> {
    let bad = |problem: String| TaskError::Request {
        task: part.name.clone(),
        record,
        problem,
    };
    let request = pairs.encode(context, continuation, part.spec.pairs)?;
    let request = request.ok_or_else(|| TaskError::NoStart {
        task: part.name.clone(),
        record,
    })?;
    if request.continuation.is_empty() {
        return Err(bad(format!("no token of its own is left for {continuation:?}")));
    }
    if request.context.is_empty() {
        return Err(bad("its context has no token".into()));
    }
    if request.continuation.len() > max_length {
        let found = request.continuation.len();
        return Err(bad(format!(
            "its answer has {found} tokens, the model reads {max_length}"
        )));
    }
    Ok(request)
}

/// Number of records that are asked.
fn asked(records: usize, limit: Option<f64>) -> usize {
    match limit {
        None => records,
        Some(share) if share < 1.0 => ((records as f64 * share).ceil() as usize).min(records),
        Some(count) => (count as usize).min(records),
    }
}

/// What examples are drawn from.
struct Examples {
    rule: FewshotRule,
    excludes_item: bool,
    count: usize,
    random: PythonRandom,
    pool: Vec<(Record, (String, String))>,
}

impl Examples {
    fn new(
        part: &Part,
        templates: &Templates,
        count: usize,
        load: &dyn Fn(&str) -> Result<Vec<Record>, transmla_calib::CalibError>,
    ) -> Result<Self, TaskError> {
        let spec: &TaskSpec = &part.spec;
        let split = spec.fewshot_split.as_deref().unwrap_or(&spec.split);
        let mut pool = Vec::new();
        if count > 0 {
            for (index, record) in load(split)?.into_iter().enumerate() {
                let item = Item::of(spec, templates, &record).map_err(|problem| TaskError::Record {
                    task: part.name.clone(),
                    split: split.to_owned(),
                    record: index,
                    problem,
                })?;
                pool.push((record, item.example()));
            }
        }
        let needed = match spec.fewshot_excludes_item && count > 0 {
            true => count + 1,
            false => count,
        };
        if pool.len() < needed {
            return Err(TaskError::FewExamples {
                task: part.name.clone(),
                split: split.to_owned(),
                wanted: count,
                found: pool.len(),
            });
        }
        Ok(Self {
            rule: spec.fewshot,
            excludes_item: spec.fewshot_excludes_item,
            count,
            random: PythonRandom::new(SEED),
            pool,
        })
    }

    /// Those of the next record.
    fn of(&mut self, record: &Record) -> Vec<(String, String)> {
        let at = |index: &usize| self.pool[*index].1.clone();
        if self.count == 0 {
            return Vec::new();
        }
        if self.rule == FewshotRule::First {
            return (0..self.count).map(|index| at(&index)).collect();
        }
        if !self.excludes_item {
            let drawn = self.random.sample(self.pool.len(), self.count);
            return drawn.iter().map(|index| self.pool[*index].1.clone()).collect();
        }
        let others = |index: &usize| self.pool[*index].0 != *record;
        let drawn = self.random.sample(self.pool.len(), self.count + 1);
        let mut kept: Vec<usize> = drawn.into_iter().filter(others).take(self.count).collect();
        if kept.len() < self.count {
            let rest: Vec<usize> = (0..self.pool.len()).filter(others).collect();
            kept = self
                .random
                .sample(rest.len(), self.count)
                .iter()
                .map(|index| rest[*index])
                .collect();
        }
        kept.iter().map(|index| self.pool[*index].1.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_a_share() {
        for (limit, expected) in [
            (None, 10),
            (Some(3.0), 3),
            (Some(0.25), 3),
            (Some(50.0), 10),
            (Some(1.0), 1),
        ] {
            assert_eq!(asked(10, limit), expected, "{limit:?}");
        }
    }
}
