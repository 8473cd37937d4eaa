//! Text of token ids that come one at a time.

use crate::error::CalibError;
use crate::text::tokens::guarded::GuardedTokenizer;

/// What a decoder puts in the place of bytes that are no character, or not yet.
const INCOMPLETE: char = char::REPLACEMENT_CHARACTER;

/// A decoder for generation: takes ids, gives text as soon as its characters are complete.
///
/// All chunks and the rest from [`finish`](Self::finish) together are the text that decoding all ids at once gives.
/// Only the ids since the last chunk but one are decoded again, so the work per id does not grow.
#[derive(Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a GuardedTokenizer,
    skip_special: bool,
    /// The ids of the last chunk, which the decoder needs to know what stands before, and those not yet given out.
    ids: Vec<u32>,
    /// How many of them are given out.
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

    /// Ids that stand before the stream, e.g. the prompt, given before the first [`push`](Self::push); their text is not
    /// given out.
    ///
    /// Without them the first word would lose its space with tokenizers that drop the space before a text.
    pub fn prime(&mut self, prompt: &[u32]) {
        self.ids.extend_from_slice(prompt);
        self.given = self.ids.len();
    }

    /// Takes one id; gives the text that is complete with it, if any.
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

    /// The text of the ids that never became complete characters, if any.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn finish(self) -> Result<Option<String>, CalibError> {
        let rest = self.pending()?;
        Ok(Some(rest).filter(|rest| !rest.is_empty()))
    }

    /// The text of the ids not given out, in the context of those before them.
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
