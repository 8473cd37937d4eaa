//! Reading `tokenizer.json`, which may be damaged or malicious.

use std::io::Read;
use std::path::Path;

use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};
use transmla_checkpoint::checkpoint::model_file;

use crate::error::{CalibError, Cause};
use crate::text::contain::contained;
use crate::text::open::regular;
use crate::text::rows::collected::size;
use crate::text::tokens::tokenizer_parts::TokenizerParts;

/// Its name in a model's folder.
pub(crate) const TOKENIZER: &str = "tokenizer.json";

/// Most bytes of the file; the largest published ones have about 30 MiB.
const FILE: u64 = 256 << 20;

/// Most bytes of `tokenizer_config.json`.
const CONFIG: u64 = 16 << 20;

/// Names, or prefixes of names, of tokenizer files that a folder may hold instead of `tokenizer.json`.
const OTHER_FORMATS: [&str; 7] = [
    "tokenizer.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece",
    "vocab.json",
    "vocab.txt",
    "tiktoken.model",
];

/// A text that exercises most parts of a tokenizer.
const PROBE: &str = "Once upon a time,\n\n  the naïve ﬁrst crab 🦀 cost €1234.50 <unk></s>.\t";

/// Reads a tokenizer and tries it out.
pub(crate) fn read(path: &Path) -> Result<Tokenizer, CalibError> {
    let refuse = |problem: String, cause: Option<Cause>| CalibError::Tokenizer {
        path: path.to_path_buf(),
        problem,
        cause,
    };
    let fail = |problem: String| refuse(problem, None);
    let bytes = match std::fs::symlink_metadata(path) {
        Ok(_) => read_limited(path, FILE)?.ok_or_else(|| fail(format!("it is larger than {}", size(FILE as usize))))?,
        Err(_) => {
            let model = path.parent().unwrap_or(path);
            model_file(model, TOKENIZER, FILE)?.ok_or_else(|| fail(missing(model)))?
        }
    };
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(fail(
            "it is a pointer of Git LFS, not the file; fetch it (git lfs pull)".into(),
        ));
    }
    contained(|| parse(bytes))
        .unwrap_or_else(|panic| Err(panic.into()))
        .map_err(|cause| {
            let problem = format!("not a valid tokenizer file: {cause}; download or copy it again");
            refuse(problem, Some(cause))
        })
}

/// The value of a flag in `tokenizer_config.json` beside a tokenizer, if it can be read.
pub(crate) fn config_flag(folder: &Path, flag: &str) -> Option<bool> {
    let bytes = model_file(folder, "tokenizer_config.json", CONFIG).ok()??;
    let config: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    config.get(flag)?.as_bool()
}

/// The text of a special token that `tokenizer_config.json` beside a tokenizer names, if it can be read.
pub(crate) fn config_token(folder: &Path, key: &str) -> Option<String> {
    let bytes = model_file(folder, "tokenizer_config.json", CONFIG).ok()??;
    let config: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    let token = config.get(key)?;
    let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
    Some(text.to_owned())
}

fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, CalibError> {
    let mut bytes = Vec::new();
    let file = regular(path)?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| CalibError::io("read", path, e))?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn parse(bytes: &[u8]) -> Result<Tokenizer, Cause> {
    // The syntax first: the tokenizers crate panics on some invalid JSON. Then what would make it allocate more memory than
    // there is, which cannot be contained.
    let parts: TokenizerParts = serde_json::from_slice(bytes)?;
    parts.check()?;
    let mut tokenizer = Tokenizer::from_bytes(bytes)?;
    tokenizer.with_truncation(None)?;
    tokenizer.with_padding(None);
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        // Left over from training: the same text would get different ids each time.
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    // A post-processor that names special tokens it does not define fails at the first text.
    tokenizer.encode_fast("", true)?;
    // A text that the vocabulary cannot express is not the fault of the file; a panic is.
    let _ = tokenizer.encode(PROBE, true);
    let ids: Vec<u32> = (0..64).collect();
    let _ = tokenizer.decode(&ids, false);
    ids.iter().for_each(|id| drop(tokenizer.decode(&[*id], true)));
    Ok(tokenizer)
}

/// Why there is no tokenizer, and what to do about it.
fn missing(folder: &Path) -> String {
    if !folder.is_dir() {
        return "there is no such folder; expected a model folder".into();
    }
    let names = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name());
    let mut names: Vec<String> = names.filter_map(|name| name.into_string().ok()).collect();
    names.sort();
    let other = OTHER_FORMATS
        .iter()
        .find_map(|format| names.iter().find(|name| name.starts_with(format)));
    match other {
        Some(other) => format!(
            "missing, there is only {other}; make it once with transformers: python -c \"from transformers import \
             AutoTokenizer as A; A.from_pretrained('{0}').save_pretrained('{0}')\"",
            folder.display()
        ),
        None => "missing; copy tokenizer.json of the model into the folder".into(),
    }
}
