//! Tasks: questions with known answers, scored by log-likelihoods (feature `tasks`).
//!
//! | module | what it holds |
//! | --- | --- |
//! | `spec`, `catalogue` | what a task is, in TOML; the tasks that are known by name |
//! | `template`, `item` | texts of a record, and the record as questions and answers |
//! | `prompt`, `pair` | examples and chats in front of a question; texts as token ids |
//! | `prepared`, `prepare` | all requests of the selected tasks, and how they are made |
//! | `score`, `statistics` | figures and their standard errors |
//! | `compare`, `summary` | what changed from one model to another; a row for each task |
//! | `needle` | needles in haystacks |
//! | `output` | results and samples as lm-evaluation-harness writes them |
//! | `python_random`, `python_text` | Python's random numbers and methods of strings, where results depend on them |
//!
//! Tasks follow lm-evaluation-harness (Gao et al., 2021) to the token, and `mmlu_cloze` follows lighteval.

mod catalogue;
mod compare;
mod error;
mod item;
mod needle;
mod output;
mod pair;
mod prepare;
mod prepared;
mod prompt;
mod python_random;
mod python_text;
mod score;
mod spec;
mod statistics;
mod summary;
mod template;

pub use catalogue::{Part, Selected, is_task_file, select, task_names};
pub use compare::Flips;
pub use error::TaskError;
pub use output::RunFacts;
pub use prepare::PreparedTasks;
pub use prepared::{ModelText, PreparedItem, PreparedTask, TaskData, TaskOptions};
pub use score::{Figure, ScoredGroup, ScoredItem, ScoredTask, TaskScores};
pub use spec::{Choices, FewshotRule, Group, Mean, Metric, PairRule, TaskKind, TaskSpec};
pub use summary::{TaskComparison, TaskRow};
