//! Chats as text: in a model's own template, or plain.

use std::path::{Path, PathBuf};

use crate::error::CalibError;
use crate::text::rows::chat::{self, Turn};
use crate::text::tokens::chat_template::ChatTemplate;

/// How the chats of a dataset become text.
#[derive(Debug, Default)]
pub(crate) struct ChatForm {
    /// The folder of the model whose template is used.
    model: Option<PathBuf>,
    /// That template, once there has been a chat; nothing if the model has none.
    template: Option<Option<ChatTemplate>>,
    /// Chats in the plain form.
    plain: usize,
    /// Chats in the model's template.
    templated: usize,
    /// Chats that the template refuses, and what it said of the first.
    refused: usize,
    reason: Option<CalibError>,
}

impl ChatForm {
    /// The template of a model's folder, which is read at the first chat.
    pub fn of(model: Option<&Path>) -> Self {
        Self {
            model: model.map(Path::to_path_buf),
            ..Self::default()
        }
    }

    /// A chat as one document; empty if the template refuses it.
    ///
    /// # Errors
    /// The model's template cannot be read.
    pub fn text(&mut self, chat: &[Turn]) -> Result<String, CalibError> {
        if self.template.is_none() {
            // Without a time: the same text whenever it is read.
            let template = self.model.as_deref().map(ChatTemplate::from_folder).transpose()?;
            self.template = Some(template.flatten());
        }
        let Some(Some(template)) = &self.template else {
            self.plain += 1;
            return Ok(chat::plain(chat));
        };
        let rendered = match chat::messages(chat) {
            Some(messages) => template.render(&messages, false),
            None => Err(template.refusal("a message does not say whose it is")),
        };
        match rendered {
            Ok(text) => {
                self.templated += 1;
                Ok(text)
            }
            Err(reason) => {
                self.refused += 1;
                self.reason.get_or_insert(reason);
                Ok(String::new())
            }
        }
    }

    /// Whether chats were rendered with a template, which writes the special tokens itself.
    pub fn is_templated(&self) -> bool {
        self.templated > 0
    }

    /// What is to be said of the chats, if there were some.
    ///
    /// # Errors
    /// What the template said of the first chat, if it refuses all of them.
    pub fn finish(self) -> Result<Option<String>, CalibError> {
        let told = match (self.plain, self.templated, self.refused) {
            (0, 0, 0) => None,
            (0, 0, _) => return self.reason.map_or(Ok(None), Err),
            (0, _, 0) => Some("chats in the model's template".to_owned()),
            (0, _, refused) => Some(format!(
                "chats in the model's template, {refused} left out that it refuses ({})",
                self.reason.map(|reason| reason.to_string()).unwrap_or_default()
            )),
            _ => self
                .model
                .map(|_| "chats as plain text, as the model has no template".to_owned()),
        };
        Ok(told)
    }
}
