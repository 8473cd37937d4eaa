//! The tasks of a recipe as questions for a model.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use transmla_calib::{ChatTemplate, TextTokenizer};
use transmla_core::ModelConfig;
use transmla_core::hub::HubOptions;
use transmla_eval::tasks::{ModelText, PreparedTasks, Selected, TaskData, TaskError, TaskOptions, select};

use crate::spec::error::ConvertError;
use crate::spec::recipe_tasks::RecipeTasks;

/// Tasks that are known to exist; their datasets have not been looked at.
#[derive(Debug)]
pub struct TaskPlan {
    selected: Vec<Selected>,
    data: Option<PathBuf>,
    options: TaskOptions,
    /// Where questions are chats.
    template: Option<ChatTemplate>,
}

impl TaskPlan {
    /// The tasks of a recipe for the model of this folder. A chat template that tells the date is told that of `now`; without it the same
    /// recipe asks the same on every day.
    ///
    /// # Errors
    /// [`ConvertError::Tasks`]: names of no task, files that are not as they should be, chats for a model without a template;
    /// a template that cannot be used.
    pub fn new(tasks: &RecipeTasks, folder: &Path, now: Option<SystemTime>) -> Result<Self, ConvertError> {
        let selected = select(&tasks.names)?;
        let template = match tasks.apply_chat_template {
            true => Some(ChatTemplate::from_folder(folder)?.ok_or(TaskError::NoChatTemplate)?),
            false => None,
        };
        Ok(Self {
            selected,
            data: tasks.data.clone(),
            options: tasks.options(),
            template: match now {
                Some(now) => template.map(|template| template.at(now)),
                None => template,
            },
        })
    }

    /// Reads the datasets and makes the questions.
    ///
    /// # Errors
    /// As for [`PreparedTasks::new`].
    pub fn read(
        &self,
        config: &ModelConfig,
        tokenizer: &TextTokenizer,
        hub: &HubOptions,
    ) -> Result<PreparedTasks, ConvertError> {
        let model = ModelText {
            tokenizer,
            template: self.template.as_ref(),
            max_length: config.max_position_embeddings,
        };
        let data = TaskData {
            root: self.data.clone(),
            hub: hub.clone(),
        };
        Ok(PreparedTasks::new(self.selected.clone(), &data, &model, &self.options)?)
    }
}
