//! Decoding token ids that arrive one at a time.

use crate::error::CalibError;
use crate::text::tokens::guarded::GuardedTokenizer;

/// The character that decoders put in place of bytes that are not a character, or not yet.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;

/// A streaming decoder for generation: takes ids, returns text as soon as its characters are complete.
///
/// The chunks and the rest from [`finish`](Self::finish) together are the text of all ids decoded at once. Only the ids since
/// the last chunk but one are decoded again, so the work per id is bounded.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a GuardedTokenizer,
    skip_special: bool,
    /// The ids of the last chunk, which the decoder needs as context, and those whose text is not yet returned.
    ids: Vec<u32>,
    /// How many of them have their text returned.
    given: usize,
}

impl<'a> TextStream<'a> {
    pub(crate) fn new(tokenizer: &'a GuardedTokenizer, skip_special: bool) -> Self {
        Self {
            tokenizer,
            skip_special,
            ids: Vec::new(),
            given: 0,
        }
    }

    /// Sets the ids before the stream, e.g. the prompt; call it before the first [`push`](Self::push). Their text is not
    /// returned.
    ///
    /// Without them the first word would lose its leading space with tokenizers that drop the space at the start of a text.
    pub fn prime(&mut self, prompt: &[u32]) {
        self.ids.extend_from_slice(prompt);
        self.given = self.ids.len();
    }

    /// Takes one id; returns the text that it completes, if any.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<Option<String>, CalibError> {
        self.ids.push(id);
        let chunk = self.pending()?;
        if chunk.is_empty() || chunk.ends_with(INCOMPLETE) {
            return Ok(None);
        }
        self.ids.drain(..self.given);
        self.given = self.ids.len();
        Ok(Some(chunk))
    }

    /// The text of the remaining ids, whose characters are incomplete, if any.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(self) -> Result<Option<String>, CalibError> {
        let rest = self.pending()?;
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    /// The text of the ids not yet returned, in the context of those before them.
    fn pending(&self) -> Result<String, CalibError> {
        let before = self.tokenizer.decode(&self.ids[..self.given], self.skip_special)?;
        let all = self.tokenizer.decode(&self.ids, self.skip_special)?;
        let common: usize = before
            .chars()
            .zip(all.chars())
            .take_while(|(a, b)| a == b)
            .map(|(a, _)| a.len_utf8())
            .sum();
        Ok(all[common..].to_owned())
    }
}
