//! The tasks of a recipe: questions with known answers that both models are asked.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use transmla_eval::tasks::TaskOptions;

/// Tasks that the accuracy of the original and of the converted model is measured on, and how they are asked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RecipeTasks {
    /// Names of tasks (`arc_easy`), or files with tasks (`.toml`); none for no tasks.
    pub names: Vec<String>,
    /// A folder that has their datasets under the names that they have on the hub; absent for the hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<PathBuf>,
    /// Examples in front of every question.
    pub num_fewshot: usize,
    /// Records of each task: a number, or below 1 a share; absent for all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<f64>,
    /// Questions are chats, rendered with the model's template.
    pub apply_chat_template: bool,
    /// Whether examples in a chat are turns of their own.
    pub fewshot_as_multiturn: bool,
    /// Instructions in front of everything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_instruction: Option<String>,
    /// Lengths of the texts of `needle`, in tokens; those up to the model's context if there are none.
    pub needle_lengths: Vec<usize>,
}

impl Default for RecipeTasks {
    fn default() -> Self {
        let options = TaskOptions::default();
        Self {
            names: Vec::new(),
            data: None,
            num_fewshot: options.num_fewshot,
            limit: options.limit,
            apply_chat_template: options.apply_chat_template,
            fewshot_as_multiturn: options.fewshot_as_multiturn,
            system_instruction: options.system_instruction,
            needle_lengths: options.needle_lengths,
        }
    }
}

impl RecipeTasks {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// How they are asked.
    pub fn options(&self) -> TaskOptions {
        TaskOptions {
            num_fewshot: self.num_fewshot,
            limit: self.limit,
            apply_chat_template: self.apply_chat_template,
            fewshot_as_multiturn: self.fewshot_as_multiturn,
            system_instruction: self.system_instruction.clone(),
            needle_lengths: self.needle_lengths.clone(),
        }
    }

    /// One line on them.
    pub fn describe(&self) -> String {
        let mut text = self.names.join(", ");
        match self.limit {
            Some(share) if share < 1.0 => text += &format!(", {:.1} % of the records", 100.0 * share),
            Some(count) => text += &format!(", {count} records of each"),
            None => {}
        }
        match self.num_fewshot {
            0 => {}
            1 => text += ", 1 example",
            count => text += &format!(", {count} examples"),
        }
        if self.apply_chat_template {
            text += ", as chats";
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_told() {
        let tasks = |limit, num_fewshot, apply_chat_template| RecipeTasks {
            names: vec!["arc_easy".into(), "mine.toml".into()],
            limit,
            num_fewshot,
            apply_chat_template,
            ..RecipeTasks::default()
        };
        assert_eq!(tasks(None, 0, false).describe(), "arc_easy, mine.toml");
        assert_eq!(
            tasks(Some(100.0), 5, true).describe(),
            "arc_easy, mine.toml, 100 records of each, 5 examples, as chats"
        );
        assert_eq!(
            tasks(Some(0.25), 1, false).describe(),
            "arc_easy, mine.toml, 25.0 % of the records, 1 example"
        );
    }
}
