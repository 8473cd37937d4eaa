//! A model that writes: token ids in, text out as it comes.

use std::time::{Duration, Instant};

use anyhow::bail;
use serde_json::{Value, json};
use transmla_calib::TextTokenizer;
use transmla_core::generate::{Finish, Generation, Sampler, next_logits};
use transmla_core::{CacheFormat, CoreError, Decoder, KvCache, LayeredModel, ModelConfig};

use crate::printer::Printer;
use crate::table;

/// A model and what it needs to write.
pub struct Writer<'a> {
    /// The model.
    pub model: &'a Decoder,
    /// Its tokenizer.
    pub tokenizer: &'a TextTokenizer,
    /// Ids that end a text.
    pub stop_ids: &'a [u32],
    /// The most tokens of one text.
    pub max_new_tokens: usize,
}

/// What was written, and what it took.
#[derive(Debug, Clone)]
pub struct Written {
    /// The new ids, without the one that ended the text.
    pub ids: Vec<u32>,
    /// Nothing if it was stopped.
    finish: Option<Finish>,
    prompt_tokens: usize,
    prompt_time: Duration,
    time: Duration,
    cache_bytes: usize,
    cache_format: CacheFormat,
    cache_bytes_per_token: usize,
}

impl Written {
    /// Whether it was ended before the model ended it.
    pub fn is_stopped(&self) -> bool {
        self.finish.is_none()
    }

    /// For programs.
    pub fn json(&self, prompt: &str, text: &str) -> Value {
        json!({
            "prompt": prompt,
            "text": text,
            "prompt_tokens": self.prompt_tokens,
            "new_tokens": self.ids.len(),
            "prompt_seconds": self.prompt_time.as_secs_f64(),
            "seconds": self.time.as_secs_f64(),
            "cache_bytes": self.cache_bytes,
            "cache_dtype": self.cache_format.to_string(),
            "cache_bytes_per_token": self.cache_bytes_per_token,
        })
    }
}

/// Somebody has read enough: ends a text where it is.
#[derive(Debug)]
pub struct Stopped;

impl std::fmt::Display for Stopped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stopped")
    }
}

impl std::error::Error for Stopped {}

impl Writer<'_> {
    /// The ids of a text that the model is to continue.
    ///
    /// # Errors
    /// The tokenizer fails, or there is no token at all.
    pub fn prompt_ids(&self, prompt: &str) -> anyhow::Result<Vec<u32>> {
        let mut ids = self.tokenizer.encode(prompt, true)?;
        if ids.is_empty() {
            ids.extend(self.model.config().bos_token_id);
        }
        if ids.is_empty() {
            bail!("the prompt is empty and the model has no token that starts a text; give a longer --prompt");
        }
        Ok(ids)
    }

    /// A cache for a prompt of so many tokens and what follows it.
    ///
    /// # Errors
    /// The model's cache cannot have this format.
    pub fn cache(&self, prompt_tokens: usize, format: CacheFormat) -> Result<KvCache, CoreError> {
        let config = self.model.config();
        let room = prompt_tokens.saturating_add(self.max_new_tokens);
        KvCache::in_format(config, room.min(config.max_position_embeddings), format)
    }

    /// Continues a text and hands out the new text piece by piece.
    ///
    /// `ids` is the whole text so far; the cache holds as many of its first tokens as it has, and not all.
    ///
    /// # Errors
    /// As of a generation; or of `emit`, which ends the text without an error by [`Stopped`].
    pub fn write(
        &self,
        cache: &mut KvCache,
        ids: &[u32],
        sampler: &mut Sampler,
        emit: &mut dyn FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<Written> {
        let mut stream = self.tokenizer.stream(true);
        stream.prime(ids);
        let new = ids.get(cache.tokens()..).unwrap_or_default();
        sampler.saw(ids);
        let started = Instant::now();
        let logits = next_logits(self.model, cache, new)?;
        let prompt_time = started.elapsed();
        let started = Instant::now();
        let generation = Generation {
            max_new_tokens: self.max_new_tokens,
            stop_ids: self.stop_ids,
        };
        let mut written = Vec::new();
        let finish = generation.go_on(self.model, cache, logits, sampler, &mut |id| {
            written.push(id);
            match stream.push(id)? {
                Some(text) => emit(&text),
                None => anyhow::Ok(()),
            }
        });
        let finish = match finish {
            Ok(finish) => Some(finish),
            Err(error) if error.is::<Stopped>() => None,
            Err(error) => return Err(error),
        };
        if let (Some(_), Some(rest)) = (finish, stream.finish()?) {
            emit(&rest)?;
        }
        Ok(Written {
            ids: written,
            finish,
            prompt_tokens: new.len(),
            prompt_time,
            time: started.elapsed(),
            cache_bytes: cache.bytes(),
            cache_format: cache.format(),
            cache_bytes_per_token: cache.bytes_per_token(),
        })
    }

    /// Tells what a text took, and why there is none.
    pub fn describe(&self, written: &Written, printer: &Printer) {
        let config = self.model.config();
        let per_second = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
        printer.note(format!(
            "{} in {} ({:.1}/s), prompt of {} in {} ({:.1}/s)",
            table::plural(written.ids.len(), "new token"),
            table::seconds(written.time.as_secs_f64()),
            per_second(written.ids.len(), written.time),
            written.prompt_tokens,
            table::seconds(written.prompt_time.as_secs_f64()),
            per_second(written.prompt_tokens, written.prompt_time),
        ));
        let stop_id = written.finish.and_then(|finish| finish.stop_id);
        if let (0, Some(id)) = (written.ids.len(), stop_id) {
            let token = self.tokenizer.decode(&[id], false).unwrap_or_else(|_| String::new());
            printer.note(format!(
                "the model ended the text at once, with its token {id} ({token})"
            ));
        }
        printer.note(format!("KV cache: {}", cache_size(written, config)));
        let total = written.prompt_tokens + written.ids.len();
        if total > config.max_position_embeddings {
            let context = config.max_position_embeddings;
            printer.warn(format!("{total} tokens are more than the model's context of {context}"));
        }
    }
}

/// Bytes of the cache, their format, and what a token takes.
fn cache_size(written: &Written, config: &ModelConfig) -> String {
    let numbers = config.attention.cache_numbers();
    format!(
        "{} in {} ({numbers} numbers per token and layer, {} bytes)",
        table::bytes(written.cache_bytes as u64),
        written.cache_format,
        written.cache_bytes_per_token / config.num_hidden_layers.max(1),
    )
}
