//! Text to token ids and back.

use std::path::Path;

use serde::de::IgnoredAny;
use tokenizers::Tokenizer;

use crate::contain::contained;
use crate::{CalibError, TextStream};

/// What a folder without `tokenizer.json` may hold instead.
const OTHER_FORMATS: [&str; 4] = ["tokenizer.model", "vocab.json", "vocab.txt", "tiktoken.model"];

/// The tokenizer of a model folder.
#[derive(Debug, Clone)]
pub struct TextTokenizer {
    inner: Tokenizer,
}

impl TextTokenizer {
    /// Reads `tokenizer.json` of a model folder.
    ///
    /// Truncation and padding that the file asks for are switched off, as transformers does.
    ///
    /// # Errors
    /// [`CalibError::Tokenizer`] if the file is absent or not a tokenizer, [`CalibError::Io`] if it cannot be read.
    pub fn from_folder(folder: &Path) -> Result<Self, CalibError> {
        let path = folder.join("tokenizer.json");
        let fail = |problem: String| CalibError::Tokenizer {
            path: path.clone(),
            problem,
        };
        if !path.is_file() {
            return Err(fail(missing(folder)));
        }
        let bytes = std::fs::read(&path).map_err(|e| CalibError::io("read", &path, e))?;
        let inner = contained(|| parse(&bytes)).unwrap_or_else(Err).map_err(|problem| {
            fail(format!(
                "not a valid tokenizer file: {problem}; download or copy it again"
            ))
        })?;
        Ok(Self { inner })
    }

    /// The ids of a text; with `add_special`, those that the tokenizer puts around a text (most often a BOS before it)
    /// are added.
    ///
    /// Special tokens that are spelled out in the text (`<unk>`, `</s>`) become their ids, as in transformers.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, CalibError> {
        let encoding = self.inner.encode_fast(text, add_special);
        encoding
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|e| failed("encode", &e))
    }

    /// The text of some ids; `skip_special` leaves special tokens out. Ids outside the vocabulary have no text.
    ///
    /// # Errors
    /// [`CalibError::Tokenization`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, CalibError> {
        self.inner.decode(ids, skip_special).map_err(|e| failed("decode", &e))
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
}

fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    // The syntax first: on some broken JSON the tokenizer's own reader panics.
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|e| e.to_string())?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    // A post-processor that names special tokens it does not define fails at the first text.
    tokenizer.encode_fast("", true).map_err(|e| e.to_string())?;
    Ok(tokenizer)
}

fn failed(action: &'static str, error: &tokenizers::Error) -> CalibError {
    CalibError::Tokenization {
        action,
        problem: error.to_string(),
    }
}

/// Why there is no tokenizer, and what to do.
fn missing(folder: &Path) -> String {
    if !folder.is_dir() {
        return "there is no such folder; expected a model folder".into();
    }
    match OTHER_FORMATS.iter().find(|name| folder.join(name).is_file()) {
        Some(other) => format!(
            "missing, there is only {other}; write it once with transformers: \
             AutoTokenizer.from_pretrained(folder).save_pretrained(folder)"
        ),
        None => "missing; copy tokenizer.json of the model into the folder".into(),
    }
}
