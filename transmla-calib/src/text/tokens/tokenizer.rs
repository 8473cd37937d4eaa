//! The tokenizer of a model folder.

use std::fmt;
use std::path::Path;

use crate::error::CalibError;
use crate::text::tokens::guarded::GuardedTokenizer;
use crate::text::tokens::stream::TextStream;
use crate::text::tokens::{
    pieces::{self, Joining},
    tokenizer_file,
};

/// The tokenizer of a model folder.
///
/// Damaged and malicious files are errors, also where the tokenizers crate would panic.
#[derive(Clone)]
pub struct TextTokenizer(GuardedTokenizer);

impl fmt::Debug for TextTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextTokenizer")
            .field("path", &self.0.path())
            .finish_non_exhaustive()
    }
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a model folder, or makes it of the keys of a GGUF file.
    ///
    /// What the file says about special tokens holds, as in transformers 5; `add_bos_token` in `tokenizer_config.json` does
    /// not (see [`remark`](Self::remark)). Truncation, padding and BPE dropout that the file asks for are switched off.
    ///
    /// # Errors
    /// [`CalibError::Tokenizer`] if the file is absent or not a tokenizer, [`CalibError::Io`] or [`CalibError::NotAFile`] if
    /// it cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, CalibError> {
        GuardedTokenizer::open(&folder.join(tokenizer_file::TOKENIZER)).map(Self)
    }

    /// A warning about the ids, for people: `tokenizer_config.json` asks for a BOS or EOS token that `tokenizer.json` does
    /// not add.
    pub fn remark(&self) -> Option<String> {
        let (before, after) = self.0.around()?;
        let folder = self.0.path().parent()?;
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

    /// The ids of a text. With `add_special`, the special tokens that the tokenizer puts around a text (usually a BOS before
    /// it) are added.
    ///
    /// Special tokens that are spelled out in the text (`<unk>`, `</s>`) become their ids, as in transformers. A long text is
    /// tokenised in overlapping pieces, so memory does not grow with its length.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer has no token for a part of the text, or fails otherwise.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, CalibError> {
        let joining = if add_special {
            Joining::PLAIN
        } else {
            Joining::PLAIN.bare()
        };
        pieces::encode(&self.0, [text], joining, None)
    }

    /// The ids of rows joined: all of them, or the first `enough` and possibly more.
    pub(crate) fn encode_rows<'a>(
        &self,
        rows: impl IntoIterator<Item = &'a str>,
        joining: Joining,
        enough: Option<usize>,
    ) -> Result<Vec<u32>, CalibError> {
        pieces::encode(&self.0, rows, joining, enough)
    }

    /// The text of some ids; `skip_special` leaves special tokens out. Ids outside the vocabulary have no text.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, CalibError> {
        self.0.decode(ids, skip_special)
    }

    /// Number of tokens, added ones included.
    pub fn vocab_size(&self) -> usize {
        self.0.vocab_size()
    }

    /// The id of a token given by its exact text, e.g. `</s>`.
    pub fn id_of(&self, token: &str) -> Option<u32> {
        self.0.id_of(token)
    }

    /// The token that starts a text where nothing else does, and how it is spelled: `bos_token` of `tokenizer_config.json`, else
    /// `eos_token`.
    pub fn start_token(&self) -> Option<(u32, String)> {
        let folder = self.0.path().parent()?;
        let keys = ["bos_token", "eos_token"];
        let token = keys
            .into_iter()
            .find_map(|key| tokenizer_file::config_token(folder, key))?;
        Some((self.id_of(&token)?, token))
    }

    /// The texts of the special tokens, such as `</s>`.
    pub(crate) fn special_tokens(&self) -> Vec<String> {
        self.0.special_tokens()
    }

    /// A decoder for ids that arrive one at a time.
    pub fn stream(&self, skip_special: bool) -> TextStream<'_> {
        TextStream::new(&self.0, skip_special)
    }
}
