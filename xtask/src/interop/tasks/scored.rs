//! What is asked of both programs, and what they give.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One call of either program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    pub tasks: Vec<String>,
    pub num_fewshot: usize,
    pub limit: Option<usize>,
    pub chat: bool,
}

impl Run {
    pub fn new(tasks: &[&str], num_fewshot: usize, limit: Option<usize>, chat: bool) -> Self {
        Self {
            tasks: tasks.iter().map(|task| (*task).to_owned()).collect(),
            num_fewshot,
            limit,
            chat,
        }
    }
}

/// Log-likelihood of a choice, and whether it is what the model would have written.
pub type Choice = (f64, bool);

/// What one of the programs gave.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Scored {
    #[serde(flatten)]
    pub run: Run,
    /// `results` of the harness's results.json: metrics by name, of tasks and groups.
    pub results: BTreeMap<String, Map<String, Value>>,
    /// By task, the choices of each item.
    pub items: BTreeMap<String, Vec<Vec<Choice>>>,
}

/// A file of test data.
#[derive(Debug, Serialize)]
pub struct Recording {
    pub versions: Value,
    pub runs: Vec<Scored>,
}
