//! Results and samples in the layout of lm-evaluation-harness, which its own programs read.

use serde_json::{Map, Value, json};

use crate::tasks::prepare::PreparedTasks;
use crate::tasks::prepared::{PreparedItem, PreparedTask, TaskOptions};
use crate::tasks::score::{Figure, ScoredItem, TaskScores};

/// What results say about a run beside its figures.
#[derive(Debug, Clone, Default)]
pub struct RunFacts {
    /// What the model goes by.
    pub model_name: String,
    /// The program, with its version.
    pub program: String,
    /// When, in seconds since 1970.
    pub date: f64,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Longest sequence in tokens.
    pub max_length: usize,
    /// Numbers of the model.
    pub parameters: u64,
}

impl PreparedTasks {
    /// `results.json`, as text.
    pub fn results_json(&self, scores: &TaskScores, options: &TaskOptions, facts: &RunFacts) -> String {
        let mut results = Map::new();
        let (mut versions, mut shots, mut higher) = (Map::new(), Map::new(), Map::new());
        let (mut samples, mut configs, mut members) = (Map::new(), Map::new(), Map::new());
        for (task, scored) in self.tasks.iter().zip(&scores.tasks) {
            let name = &task.part.name;
            let mut entry = Map::new();
            entry.insert("name".into(), json!(name));
            entry.insert("alias".into(), json!(task.part.alias));
            entry.insert("sample_len".into(), json!(task.items.len()));
            entry.extend(figures(&scored.figures));
            results.insert(name.clone(), entry.into());
            versions.insert(name.clone(), json!(task.part.spec.version));
            shots.insert(name.clone(), json!(task.shots));
            higher.insert(name.clone(), directions(&scored.figures));
            samples.insert(
                name.clone(),
                json!({"original": task.records, "effective": task.items.len()}),
            );
            configs.insert(name.clone(), config(task));
        }
        let mut groups = Map::new();
        for group in &scores.groups {
            let mut entry = Map::new();
            entry.insert("name".into(), json!(group.name));
            entry.insert("alias".into(), json!(group.alias));
            entry.insert("sample_len".into(), json!(group.records));
            entry.extend(figures(&group.figures));
            let count = group.figures.iter().map(|figure| (key(figure), json!(group.records)));
            entry.insert("sample_count".into(), Value::Object(count.collect()));
            results.insert(group.name.clone(), entry.clone().into());
            groups.insert(group.name.clone(), entry.into());
            versions.insert(group.name.clone(), json!(group.version));
            higher.insert(group.name.clone(), directions(&group.figures));
            members.insert(group.name.clone(), json!(group.members));
        }
        let mut all = Map::new();
        all.insert("results".into(), results.into());
        if !groups.is_empty() {
            all.insert("groups".into(), groups.into());
        }
        all.insert("group_subtasks".into(), members.into());
        all.insert("configs".into(), configs.into());
        all.insert("versions".into(), versions.into());
        all.insert("n-shot".into(), shots.into());
        all.insert("higher_is_better".into(), higher.into());
        all.insert("n-samples".into(), samples.into());
        all.insert(
            "config".into(),
            json!({
                "model": "transmla", "model_args": {"pretrained": facts.model_name},
                "model_num_parameters": facts.parameters, "limit": options.limit, "bootstrap_iters": 100_000,
                "random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234,
            }),
        );
        for (key, value) in [
            ("date", json!(facts.date)),
            ("max_length", json!(facts.max_length)),
            ("model_source", json!("transmla")),
            ("model_name", json!(facts.model_name)),
            (
                "model_name_sanitized",
                json!(facts.model_name.replace(['/', '\\'], "__")),
            ),
            ("system_instruction", json!(options.system_instruction)),
            (
                "fewshot_as_multiturn",
                json!(options.apply_chat_template && options.fewshot_as_multiturn),
            ),
            ("program", json!(facts.program)),
            ("total_evaluation_time_seconds", json!(facts.seconds.to_string())),
        ] {
            all.insert(key.into(), value);
        }
        let mut text = format!("{:#}", Value::Object(all));
        text.push('\n');
        text
    }

    /// `samples_TASK.jsonl` of each task, as name of the task and text: one line a record.
    pub fn samples_jsonl(&self, scores: &TaskScores) -> Vec<(String, String)> {
        let tasks = self.tasks.iter().zip(&scores.tasks);
        tasks
            .map(|(task, scored)| {
                let lines = task.items.iter().zip(&scored.items).enumerate();
                let text = lines.map(|(index, (item, scored))| sample(task, index, item, scored) + "\n");
                (task.part.name.clone(), text.collect())
            })
            .collect()
    }
}

fn key(figure: &Figure) -> String {
    format!("{},none", figure.metric.name())
}

fn figures(figures: &[Figure]) -> Map<String, Value> {
    let mut found = Map::new();
    for figure in figures {
        found.insert(key(figure), json!(figure.value));
        let error = figure.error.map_or(json!("N/A"), |error| json!(error));
        found.insert(format!("{}_stderr,none", figure.metric.name()), error);
    }
    found
}

fn directions(figures: &[Figure]) -> Value {
    let of = |figure: &Figure| (figure.metric.name().to_owned(), json!(figure.metric.higher_is_better()));
    Value::Object(figures.iter().map(of).collect())
}

fn config(task: &PreparedTask) -> Value {
    let spec = &task.part.spec;
    let metrics = spec
        .metrics
        .iter()
        .map(|metric| json!({"metric": metric.name(), "higher_is_better": metric.higher_is_better()}));
    json!({
        "task": task.part.name, "dataset_path": spec.dataset, "dataset_name": spec.config, "test_split": spec.split,
        "fewshot_split": spec.fewshot_split, "description": spec.description, "doc_to_text": spec.question,
        "target_delimiter": spec.target_delimiter, "num_fewshot": task.shots, "metric_list": metrics.collect::<Vec<_>>(),
        "metadata": {"version": spec.version},
    })
}

fn sample(task: &PreparedTask, index: usize, item: &PreparedItem, scored: &ScoredItem) -> String {
    let pair = |(context, continuation): &(String, String)| json!({"arg_0": context, "arg_1": continuation});
    let arguments = item.texts.iter().enumerate();
    let arguments: Map<String, Value> = arguments
        .map(|(index, texts)| (format!("gen_args_{index}"), pair(texts)))
        .collect();
    let answer = |found: &crate::likelihood::Likelihood| {
        json!([
            found.log_likelihood.to_string(),
            if found.is_greedy { "True" } else { "False" }
        ])
    };
    let answers: Vec<Value> = scored.likelihoods.iter().map(answer).collect();
    let metrics = &task.part.spec.metrics;
    let mut line = Map::new();
    line.insert("doc_id".into(), json!(index));
    line.insert("doc".into(), json!(item.record));
    let target = match item.texts.as_slice() {
        [(_, continuation)] => json!(continuation),
        _ => json!(item.gold.map(|gold| gold.to_string())),
    };
    line.insert("target".into(), target);
    line.insert("arguments".into(), arguments.into());
    line.insert("resps".into(), answers.iter().map(|answer| json!([answer])).collect());
    line.insert("filtered_resps".into(), answers.into());
    line.insert("filter".into(), json!("none"));
    line.insert("metrics".into(), metrics.iter().map(|metric| metric.name()).collect());
    for (metric, value) in metrics.iter().zip(&scored.values) {
        line.insert(metric.name().into(), json!(value));
    }
    Value::Object(line).to_string()
}
