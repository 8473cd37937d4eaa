//! A chat with a model: messages, and the tokens of them that the cache holds.

use std::path::Path;
use std::time::SystemTime;

use anyhow::bail;
use transmla_calib::{ChatMessage, ChatTemplate, TextTokenizer};
use transmla_core::generate::{GenerationSettings, Sampler};
use transmla_core::{KvCache, LayeredModel, StorageDtype};

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
    pub fn new(
        writer: &'a Writer<'a>,
        template: &'a ChatTemplate,
        system: Option<String>,
        context: usize,
        cache_dtype: StorageDtype,
    ) -> Self {
        Self {
            writer,
            template,
            system: system.map(ChatMessage::system),
            messages: Vec::new(),
            cache: KvCache::with_dtype(writer.model.config(), context, cache_dtype),
            cached: Vec::new(),
            context,
        }
    }

    /// Forgets what was said.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Lets the model answer a message; both are remembered if the answer comes to its end.
    ///
    /// # Errors
    /// The chat is longer than its context, the template refuses it, or the model fails.
    pub fn answer(
        &mut self,
        message: &str,
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Written> {
        let mut messages: Vec<ChatMessage> = self.system.iter().chain(&self.messages).cloned().collect();
        messages.push(ChatMessage::user(message));
        let ids = self
            .writer
            .tokenizer
            .encode(&self.template.render(&messages, true)?, false)?;
        let needed = ids.len() + self.writer.max_new_tokens;
        if needed > self.context {
            bail!(
                "the chat has {} tokens and the answer may have {}, more than the context of {}; /clear starts over",
                ids.len(),
                self.writer.max_new_tokens,
                self.context
            );
        }
        // At least one token is new: the answer begins behind it.
        let same = self.cached.iter().zip(&ids).take_while(|(old, new)| old == new).count();
        let kept = same.min(ids.len().saturating_sub(1));
        self.cache.truncate(kept);
        self.cached.truncate(kept);
        let mut text = String::new();
        let written = self.writer.write(&mut self.cache, &ids, sampler, &mut |piece| {
            text.push_str(piece);
            emit(piece)
        });
        match written {
            Ok(written) => {
                self.cached = ids;
                self.cached.extend(&written.ids);
                self.cached.truncate(self.cache.tokens());
                self.messages.push(ChatMessage::user(message));
                self.messages.push(ChatMessage::assistant(text));
                Ok(written)
            }
            Err(error) => {
                self.cache.truncate(0);
                self.cached.clear();
                Err(error)
            }
        }
    }
}
