//! Text to token ids and back.

use std::fmt;
use std::path::{Path, PathBuf};

use tokenizers::Tokenizer;

use crate::error::CalibError;
use crate::text::contain::contained;
use crate::text::tokens::pieces::{self, Token};
use crate::text::tokens::stream::TextStream;
use crate::text::tokens::tokenizer_file;

/// The tokenizer of a model folder.
///
/// Its crate panics on some files that are damaged or made to; here that is an error like any other.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
    path: PathBuf,
    /// The special tokens before and behind a text, if it is so simple.
    around: Option<(Vec<u32>, Vec<u32>)>,
}

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a model folder.
    ///
    /// What the file says about special tokens holds, as in transformers 5: `add_bos_token` of `tokenizer_config.json` does
    /// not (see [`remark`](Self::remark)). Truncation, padding and BPE dropout that the file asks for are switched off.
    ///
    /// # Errors
    /// [`CalibError::Tokenizer`] if the file is absent or not a tokenizer, [`CalibError::Io`] or [`CalibError::NotAFile`] if
    /// it cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, CalibError> {
        let path = folder.join("tokenizer.json");
        let inner = tokenizer_file::read(&path)?;
        let mut tokenizer = Self {
            inner,
            path,
            around: None,
        };
        tokenizer.around = tokenizer.special_around();
        Ok(tokenizer)
    }

    /// What people should know of the ids: that `tokenizer_config.json` asks for a BOS or EOS which `tokenizer.json` does not
    /// add.
    pub fn remark(&self) -> Option<String> {
        let (before, after) = self.around.as_ref()?;
        let folder = self.path.parent()?;
        let asks = |flag| tokenizer_file::config_flag(folder, flag) == Some(true);
        let (flag, token) = match () {
            () if before.is_empty() && asks("add_bos_token") => ("add_bos_token", "BOS"),
            () if after.is_empty() && asks("add_eos_token") => ("add_eos_token", "EOS"),
            () => return None,
        };
        Some(format!(
            "tokenizer_config.json says {flag}, but the post_processor of tokenizer.json adds no {token}; none is added, as in \
             transformers 5 (older versions add it)"
        ))
    }

    /// The ids of a text; with `add_special`, those that the tokenizer puts around a text (most often a BOS before it)
    /// are added.
    ///
    /// Special tokens that are spelled out in the text (`<unk>`, `</s>`) become their ids, as in transformers. A long text is
    /// tokenised in pieces that overlap, so that memory does not grow with it.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer has no token for a part of the text, or gives up.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, CalibError> {
        pieces::encode(self, [text], add_special, None)
    }

    /// The ids of a text at once.
    pub(crate) fn encode_whole(&self, text: &str, add_special: bool) -> Result<Vec<u32>, CalibError> {
        let encode = || {
            self.inner
                .encode_fast(text, add_special)
                .map(|encoding| encoding.get_ids().to_vec())
        };
        self.guarded("encode", encode)
    }

    /// The tokens of a text at once, with the places where they begin, and without special ones around.
    pub(crate) fn encode_places(&self, text: &str) -> Result<Vec<Token>, CalibError> {
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

    /// The special tokens before and behind a text, if they are the same for all texts.
    pub(crate) fn around(&self) -> Option<&(Vec<u32>, Vec<u32>)> {
        self.around.as_ref()
    }

    fn special_around(&self) -> Option<(Vec<u32>, Vec<u32>)> {
        let text = self.encode_whole("a", false).ok().filter(|ids| !ids.is_empty())?;
        let whole = self.encode_whole("a", true).ok()?;
        let at = whole.windows(text.len()).position(|ids| ids == text)?;
        Some((whole[..at].to_vec(), whole[at + text.len()..].to_vec()))
    }

    /// The text of some ids; `skip_special` leaves special tokens out. Ids outside the vocabulary have no text.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, CalibError> {
        self.guarded("decode", || self.inner.decode(ids, skip_special))
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// The id of a token given by its exact text, e.g. `</s>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Decodes ids that come one at a time.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(self, skip_special)
    }

    fn guarded<T>(
        &self,
        action: &'static str,
        work: impl FnOnce() -> Result<T, tokenizers::Error>,
    ) -> Result<T, CalibError> {
        let fail = |problem| CalibError::Tokenization {
            path: self.path.clone(),
            action,
            problem,
        };
        contained(work).map_err(fail)?.map_err(|e| fail(e.to_string()))
    }
}
