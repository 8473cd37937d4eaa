//! The tasks of a recipe as questions for a model.

use std::path::Path;

use transmla_calib::{ChatTemplate, TextTokenizer};
use transmla_core::ModelConfig;
use transmla_core::hub::HubOptions;
use transmla_eval::tasks::{ModelText, PreparedTasks, Selected, TaskData, TaskError, select};

use crate::spec::error::ConvertError;
use crate::spec::recipe_tasks::RecipeTasks;

/// Tasks that are known to exist; their datasets have not been looked at.
#[derive(Debug, Clone)]
pub(crate) struct TaskPlan {
    tasks: RecipeTasks,
    selected: Vec<Selected>,
}

impl TaskPlan {
    /// The tasks of a recipe for the model of this folder, if it has any.
    ///
    /// # Errors
    /// [`ConvertError::Tasks`]: names of no task, files that are not as they should be, chats for a model without a template.
    pub fn new(tasks: &RecipeTasks, folder: &Path) -> Result<Option<Self>, ConvertError> {
        if tasks.is_empty() {
            return Ok(None);
        }
        let selected = select(&tasks.names)?;
        if tasks.apply_chat_template && ChatTemplate::from_folder(folder)?.is_none() {
            return Err(TaskError::NoChatTemplate.into());
        }
        Ok(Some(Self {
            tasks: tasks.clone(),
            selected,
        }))
    }

    /// Reads the datasets and makes the questions. A chat template that tells the date is not told today's: the same recipe asks
    /// the same.
    ///
    /// # Errors
    /// As for [`PreparedTasks::new`].
    pub fn read(
        &self,
        config: &ModelConfig,
        folder: &Path,
        tokenizer: &TextTokenizer,
        hub: &HubOptions,
    ) -> Result<PreparedTasks, ConvertError> {
        let template = match self.tasks.apply_chat_template {
            true => ChatTemplate::from_folder(folder)?,
            false => None,
        };
        let model = ModelText {
            tokenizer,
            template: template.as_ref(),
            max_length: config.max_position_embeddings,
        };
        let data = TaskData {
            root: self.tasks.data.clone(),
            hub: hub.clone(),
        };
        Ok(PreparedTasks::new(
            self.selected.clone(),
            &data,
            &model,
            &self.tasks.options(),
        )?)
    }
}
