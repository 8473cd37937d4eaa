//! A chat with a model: messages, and the tokens of them that the cache holds.

use std::path::Path;
use std::time::SystemTime;

use anyhow::bail;
use transmla_calib::{ChatMessage, ChatTemplate, TextTokenizer};
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::{CacheFormat, CoreError, KvCache, LayeredModel};

use crate::writer::{Writer, Written};

/// The chat template of a model's folder; the token that ends a turn becomes one of the settings' stop ids.
///
/// # Errors
/// There is none, or it cannot be used.
pub fn chat_template(
    folder: &Path,
    tokenizer: &TextTokenizer,
    settings: &mut GenerationSettings,
) -> anyhow::Result<ChatTemplate> {
    let Some(template) = ChatTemplate::from_folder(folder)? else {
        bail!(
            "the model has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json): it was not made \
             for chats, or the file was not copied; `transmla generate --prompt` continues a text instead"
        );
    };
    let end = template
        .special_token("eos_token")
        .and_then(|token| tokenizer.id_of(token));
    settings
        .stop_ids
        .extend(end.filter(|id| !settings.stop_ids.contains(id)));
    Ok(template.at(SystemTime::now()))
}

/// Why a message is not answered; the chat may go on with another.
#[derive(Debug)]
pub struct Refused(String);

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

/// A chat that goes on, with a cache that goes on with it.
pub struct Conversation<'a> {
    writer: &'a Writer<'a>,
    template: &'a ChatTemplate,
    system: Option<ChatMessage>,
    messages: Vec<ChatMessage>,
    cache: KvCache,
    /// The ids that the cache holds.
    cached: Vec<u32>,
    context: usize,
}

impl<'a> Conversation<'a> {
    /// A chat of at most `context` tokens.
    ///
    /// # Errors
    /// The model's cache cannot have this format.
    pub fn new(
        writer: &'a Writer<'a>,
        template: &'a ChatTemplate,
        system: Option<String>,
        context: usize,
        format: CacheFormat,
    ) -> Result<Self, CoreError> {
        Ok(Self {
            writer,
            template,
            system: system.map(ChatMessage::system),
            messages: Vec::new(),
            cache: KvCache::in_format(writer.model.config(), context, format)?,
            cached: Vec::new(),
            context,
        })
    }

    /// Forgets what was said.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Lets the model answer a message; both are remembered, also if `emit` stops the answer by
    /// [`Stopped`](crate::writer::Stopped) when some of it is there.
    ///
    /// # Errors
    /// [`Refused`] if the chat is longer than its context or the template does not take it; the model fails.
    pub fn answer(
        &mut self,
        message: &str,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Written> {
        let mut messages: Vec<ChatMessage> = self.system.iter().chain(&self.messages).cloned().collect();
        messages.push(ChatMessage::user(message));
        let rendered = self.template.render(&messages, true);
        let rendered = rendered.map_err(|error| Refused(error.to_string()))?;
        let ids = self.writer.tokenizer.encode(&rendered, false)?;
        self.check_length(ids.len())?;
        // At least one token is new: the answer begins behind it.
        let same = self.cached.iter().zip(&ids).take_while(|(old, new)| old == new).count();
        let kept = same.min(ids.len().saturating_sub(1));
        self.cache.truncate(kept);
        self.cached.truncate(self.cache.tokens());
        let mut text = String::new();
        let written = self.writer.write(&mut self.cache, &ids, sampler, &mut |piece| {
            emit(piece)?;
            text.push_str(piece);
            Ok(())
        });
        match written {
            Ok(written) => {
                self.cached = ids;
                self.cached.extend(&written.ids);
                self.cached.truncate(self.cache.tokens());
                if !(written.is_stopped() && text.is_empty()) {
                    self.messages.push(ChatMessage::user(message));
                    self.messages.push(ChatMessage::assistant(text));
                }
                Ok(written)
            }
            Err(error) => {
                self.cache.truncate(0);
                self.cached.clear();
                Err(error)
            }
        }
    }
    /// Whether a chat of so many tokens has an answer beside it in the context.
    fn check_length(&self, tokens: usize) -> Result<(), Refused> {
        let (answer, context) = (self.writer.max_new_tokens, self.context);
        if tokens + answer <= context {
            return Ok(());
        }
        let (what, advice) = match self.messages.is_empty() {
            true => (
                "message",
                "shorten it, or give a larger --context or a smaller --max-new-tokens",
            ),
            false => ("chat", "/clear starts over"),
        };
        Err(Refused(format!(
            "the {what} has {tokens} tokens and the answer may have {answer}, more than the context of {context}; {advice}"
        )))
    }
}
