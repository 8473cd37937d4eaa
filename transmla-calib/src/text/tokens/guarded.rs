//! A tokenizer whose panics are errors.

use std::fmt;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::error::CalibError;
use crate::text::contain::contained;
use crate::text::tokens::tokenizer_file;

/// A token and the byte offset in the text at which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Token {
    pub start: usize,
    pub id: u32,
}

/// The special tokens before and after a text.
pub(crate) type Around = (Vec<u32>, Vec<u32>);

/// The tokenizer of a file. The crate that it is of panics on some damaged or malicious files; here that is an error.
#[derive(Clone)]
pub(crate) struct GuardedTokenizer {
    inner: Tokenizer,
    path: PathBuf,
    around: Option<Around>,
}

impl fmt::Debug for GuardedTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuardedTokenizer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl GuardedTokenizer {
    /// Reads `tokenizer.json`.
    pub fn open(path: &Path) -> Result<Self, CalibError> {
        let mut tokenizer = Self {
            inner: tokenizer_file::read(path)?,
            path: path.to_path_buf(),
            around: None,
        };
        tokenizer.around = tokenizer.special_around();
        Ok(tokenizer)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The ids of a text, tokenised in one piece.
    pub fn encode_whole(&self, text: &str, add_special: bool) -> Result<Vec<u32>, CalibError> {
        let encode = || {
            self.inner
                .encode_fast(text, add_special)
                .map(|encoding| encoding.get_ids().to_vec())
        };
        self.guarded("encode", encode)
    }

    /// The tokens of a text, tokenised in one piece, with their offsets and without special tokens around them.
    pub fn encode_places(&self, text: &str) -> Result<Vec<Token>, CalibError> {
        let encode = || {
            let encoding = self.inner.encode(text, false)?;
            let places = encoding.get_offsets().iter();
            Ok(places
                .zip(encoding.get_ids())
                .map(|(place, id)| Token {
                    start: place.0,
                    id: *id,
                })
                .collect())
        };
        self.guarded("encode", encode)
    }

    /// The special tokens before and after a text, if they are the same for all texts.
    pub fn around(&self) -> Option<&Around> {
        self.around.as_ref()
    }

    fn special_around(&self) -> Option<Around> {
        let text = self.encode_whole("a", false).ok().filter(|ids| !ids.is_empty())?;
        let whole = self.encode_whole("a", true).ok()?;
        let at = whole.windows(text.len()).position(|ids| ids == text)?;
        Some((whole[..at].to_vec(), whole[at + text.len()..].to_vec()))
    }

    /// The text of some ids; `skip_special` leaves special tokens out.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, CalibError> {
        self.guarded("decode", || self.inner.decode(ids, skip_special))
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The texts of the special tokens.
    pub fn special_tokens(&self) -> Vec<String> {
        let added = self.inner.get_added_tokens_decoder();
        added
            .values()
            .filter(|token| token.special)
            .map(|token| token.content.clone())
            .collect()
    }

    /// The id of a token given by its exact text.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    fn guarded<T>(
        &self,
        action: &'static str,
        work: impl FnOnce() -> Result<T, tokenizers::Error>,
    ) -> Result<T, CalibError> {
        let fail = |cause: tokenizers::Error| CalibError::Tokenization {
            path: self.path.clone(),
            action,
            problem: cause.to_string(),
            cause,
        };
        contained(work).map_err(|panic| fail(panic.into()))?.map_err(fail)
    }
}
