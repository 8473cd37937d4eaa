//! How tasks are asked, and what they are once they are ready to be scored.

use std::path::PathBuf;

use transmla_calib::{ChatTemplate, Record, TextTokenizer};
use transmla_core::hub::HubOptions;

use crate::likelihood::Request;
use crate::tasks::catalogue::Part;

/// How tasks are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskOptions {
    /// Examples in front of every question.
    pub num_fewshot: usize,
    /// Records of each task: a number, or below 1 a share.
    pub limit: Option<f64>,
    /// Prompts are chats, rendered with the model's template.
    pub apply_chat_template: bool,
    /// Whether examples are turns of the chat of their own.
    pub fewshot_as_multiturn: bool,
    /// Instructions in front of everything.
    pub system_instruction: Option<String>,
    /// Lengths of the haystacks of `needle`, in tokens; those up to the model's context if there are none.
    pub needle_lengths: Vec<usize>,
}

impl Default for TaskOptions {
    fn default() -> Self {
        Self {
            num_fewshot: 0,
            limit: None,
            apply_chat_template: false,
            fewshot_as_multiturn: true,
            system_instruction: None,
            needle_lengths: Vec::new(),
        }
    }
}

impl TaskOptions {
    /// Whether a number can be a limit: a number of records, or below 1 a share of them.
    pub fn is_limit(limit: f64) -> bool {
        limit > 0.0 && limit.is_finite() && (limit < 1.0 || limit.fract() == 0.0)
    }
}

/// Where datasets are.
#[derive(Debug, Clone, Default)]
pub struct TaskData {
    /// A folder that has them under the names that they have on the hub; the hub if there is none.
    pub root: Option<PathBuf>,
    /// Access to the hub.
    pub hub: HubOptions,
}

/// What a model's folder has for tasks.
#[derive(Debug)]
pub struct ModelText<'a> {
    /// Cuts texts into tokens.
    pub tokenizer: &'a TextTokenizer,
    /// Renders chats, if the model has a template.
    pub template: Option<&'a ChatTemplate>,
    /// Longest sequence in tokens.
    pub max_length: usize,
}

/// A task with one dataset, ready to be scored.
#[derive(Debug, Clone)]
pub struct PreparedTask {
    /// What it is.
    pub part: Part,
    /// Examples in front of each question.
    pub shots: usize,
    /// Records of the split.
    pub records: usize,
    /// Those that are asked.
    pub items: Vec<PreparedItem>,
}

/// A record, ready to be scored.
#[derive(Debug, Clone)]
pub struct PreparedItem {
    /// What it is made of.
    pub record: Record,
    /// Context and continuation of each choice.
    pub texts: Vec<(String, String)>,
    /// The same as token ids.
    pub requests: Vec<Request>,
    /// Characters of each choice.
    pub lengths: Vec<usize>,
    /// The right choice.
    pub gold: Option<usize>,
}
