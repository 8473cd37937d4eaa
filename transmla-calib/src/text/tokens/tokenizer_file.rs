//! Reading `tokenizer.json`, which may be damaged or made to harm.

use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use tokenizers::{ModelWrapper, Tokenizer};

use crate::error::CalibError;
use crate::text::contain::contained;
use crate::text::open::regular;
use crate::text::rows::collected::size;

/// Most bytes of the file; the largest published ones have some thirty MiB.
const FILE: u64 = 256 << 20;

/// Most bytes of `tokenizer_config.json`.
const CONFIG: u64 = 16 << 20;

/// Most characters that the replacements of a tokenizer may make of one, one after the other.
const GROWTH: f64 = 64.0;

/// Most bytes of a prefix or suffix that is put to words.
const AFFIX: usize = 256;

/// Most special tokens that are put around a text.
const AROUND: usize = 256;

/// Longest word, in characters, that a WordPiece model may be made to take apart: the time grows with its square.
const WORD: u64 = 10_000;

/// What a folder without `tokenizer.json` may hold instead: names, or their beginnings.
const OTHER_FORMATS: [&str; 7] = [
    "tokenizer.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece",
    "vocab.json",
    "vocab.txt",
    "tiktoken.model",
];

/// Text that goes through most parts of a tokenizer.
const PROBE: &str = "Once upon a time,\n\n  the naïve ﬁrst crab 🦀 cost €1234.50 <unk></s>.\t";

/// Reads a tokenizer and tries it.
pub(crate) fn read(path: &Path) -> Result<Tokenizer, CalibError> {
    let fail = |problem: String| CalibError::Tokenizer {
        path: path.to_path_buf(),
        problem,
    };
    if std::fs::symlink_metadata(path).is_err() {
        return Err(fail(missing(path.parent().unwrap_or(path))));
    }
    let bytes = read_limited(path, FILE)?.ok_or_else(|| fail(format!("it is larger than {}", size(FILE as usize))))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if bytes.starts_with(b"version https://git-lfs") {
        return Err(fail(
            "it is a pointer of Git LFS, not the file; fetch it (git lfs pull)".into(),
        ));
    }
    contained(|| parse(bytes)).unwrap_or_else(Err).map_err(|problem| {
        fail(format!(
            "not a valid tokenizer file: {problem}; download or copy it again"
        ))
    })
}

/// What `tokenizer_config.json` beside a tokenizer says of a flag; nothing if it says nothing that can be read.
pub(crate) fn config_flag(folder: &Path, flag: &str) -> Option<bool> {
    let bytes = read_limited(&folder.join("tokenizer_config.json"), CONFIG).ok()??;
    let config: Value = serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    config.get(flag)?.as_bool()
}

fn read_limited(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, CalibError> {
    let mut bytes = Vec::new();
    let file = regular(path)?;
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(|e| CalibError::io("read", path, e))?;
    Ok((bytes.len() as u64 <= limit).then_some(bytes))
}

fn parse(bytes: &[u8]) -> Result<Tokenizer, String> {
    // The syntax first: on some broken JSON the tokenizer's own reader panics. Then what would make it ask for more memory
    // than there is, which cannot be contained.
    let parts: Parts = serde_json::from_slice(bytes).map_err(|e| e.to_string())?;
    parts.check()?;
    let mut tokenizer = Tokenizer::from_bytes(bytes).map_err(|e| e.to_string())?;
    tokenizer.with_truncation(None).map_err(|e| e.to_string())?;
    tokenizer.with_padding(None);
    if let ModelWrapper::BPE(model) = tokenizer.get_model()
        && model.dropout.is_some()
    {
        // Left over from training: the same text would have other ids each time.
        let mut model = model.clone();
        model.dropout = None;
        tokenizer.with_model(model);
    }
    // A post-processor that names special tokens it does not define fails at the first text.
    tokenizer.encode_fast("", true).map_err(|e| e.to_string())?;
    // A text that the vocabulary cannot express is no fault of the file; a panic is.
    let _ = tokenizer.encode(PROBE, true);
    let ids: Vec<u32> = (0..64).collect();
    let _ = tokenizer.decode(&ids, false);
    ids.iter().for_each(|id| drop(tokenizer.decode(&[*id], true)));
    Ok(tokenizer)
}

/// What is looked at before the tokenizer is made: all but the vocabulary.
#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    normalizer: Value,
    #[serde(default)]
    pre_tokenizer: Value,
    #[serde(default)]
    post_processor: Value,
    #[serde(default)]
    decoder: Value,
    #[serde(default)]
    model: Option<Model>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    max_input_chars_per_word: Option<u64>,
    #[serde(default, rename = "vocab")]
    _vocab: IgnoredAny,
}

impl Parts {
    fn check(&self) -> Result<(), String> {
        for part in [
            &self.normalizer,
            &self.pre_tokenizer,
            &self.post_processor,
            &self.decoder,
        ] {
            let mut growth = 1.0;
            check_part(part, &mut growth)?;
            if growth > GROWTH {
                return Err(format!(
                    "its replacements make {growth:.0} characters of one, at most {GROWTH} are possible"
                ));
            }
        }
        let Some(model) = &self.model else { return Ok(()) };
        for affix in [&model.continuing_subword_prefix, &model.end_of_word_suffix]
            .into_iter()
            .flatten()
        {
            check_affix(affix)?;
        }
        match model.max_input_chars_per_word {
            Some(most) if most > WORD => Err(format!(
                "max_input_chars_per_word is {most}, at most {WORD} is possible"
            )),
            _ => Ok(()),
        }
    }
}

fn check_affix(affix: &str) -> Result<(), String> {
    match affix.len() > AFFIX {
        true => Err(format!(
            "a prefix or suffix of {} bytes, at most {AFFIX} are possible",
            affix.len()
        )),
        false => Ok(()),
    }
}

/// Looks at a part and the parts in it; `growth` is what their replacements make of one character.
fn check_part(part: &Value, growth: &mut f64) -> Result<(), String> {
    match part {
        Value::Array(parts) => parts.iter().try_for_each(|part| check_part(part, growth)),
        Value::Object(members) => {
            if let Some(Value::String(map)) = members.get("precompiled_charsmap") {
                check_charsmap(map)?;
            }
            if let Some(tokens) = members.get("special_tokens") {
                for template in ["single", "pair"] {
                    check_template(members.get(template), tokens)?;
                }
            }
            if let Some(Value::String(prefix)) = members.get("prepend") {
                check_affix(prefix)?;
            }
            if let (Some(pattern), Some(Value::String(content))) = (members.get("pattern"), members.get("content")) {
                let replaced = pattern
                    .get("String")
                    .and_then(Value::as_str)
                    .map_or(1, |text| text.chars().count());
                *growth *= (content.chars().count() as f64 / replaced.max(1) as f64).max(1.0);
            }
            members.values().try_for_each(|part| check_part(part, growth))
        }
        _ => Ok(()),
    }
}

/// A template puts the ids of all its special tokens around every text.
fn check_template(template: Option<&Value>, tokens: &Value) -> Result<(), String> {
    let pieces = template.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ids_of = |piece: &Value| {
        let name = piece.get("SpecialToken")?.get("id")?.as_str()?;
        Some(tokens.get(name)?.get("ids")?.as_array()?.len())
    };
    let around: usize = pieces.iter().map(|piece| ids_of(piece).unwrap_or(1)).sum();
    match around > AROUND {
        true => Err(format!(
            "its template puts {around} special tokens around a text, at most {AROUND} are possible"
        )),
        false => Ok(()),
    }
}

/// A map of characters begins with the size of its table, which is allocated before it is read.
fn check_charsmap(map: &str) -> Result<(), String> {
    let bytes = map.len() as u64 / 4 * 3;
    let begins = map.as_bytes().get(..8).and_then(first_bytes);
    let Some(table) = begins.map(u64::from) else {
        return Err("its precompiled_charsmap is too short".into());
    };
    if table < 4 || table + 4 > bytes {
        return Err(format!(
            "its precompiled_charsmap of about {bytes} bytes has a table of {table}"
        ));
    }
    Ok(())
}

/// The first four bytes of eight letters of base64, the low one first.
fn first_bytes(letters: &[u8]) -> Option<u32> {
    let digit = |letter: &u8| match letter {
        b'A'..=b'Z' => Some(letter - b'A'),
        b'a'..=b'z' => Some(letter - b'a' + 26),
        b'0'..=b'9' => Some(letter - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        b'=' => Some(0),
        _ => None,
    };
    let bits = letters
        .iter()
        .try_fold(0_u64, |bits, letter| Some(bits << 6 | u64::from(digit(letter)?)))?;
    // Forty-eight bits: six bytes, the first one highest.
    Some(((bits >> 16) as u32).swap_bytes())
}

/// Why there is no tokenizer, and what to do.
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_table_of_a_charsmap_is_checked() {
        assert_eq!(first_bytes(b"AAAAAA=="), Some(0));
        // 04 00 00 00 61 62, and ff ff ff 7f.
        assert_eq!(first_bytes(b"BAAAAGFi"), Some(4));
        assert_eq!(first_bytes(b"////fw=="), Some(0x7fff_ffff));
        for map in ["AAAAAA==", "", "AAAA", "////fwAA", "!!!!!!!!", "BAAAAA=="] {
            assert!(check_charsmap(map).is_err(), "{map}");
        }
        assert!(check_charsmap("BAAAAAAAAAAAAAAA").is_ok());
    }

    #[test]
    fn replacements_may_not_explode() {
        let replace =
            |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
        let growth = |parts: Vec<Value>| {
            let mut growth = 1.0;
            check_part(&json!({"type": "Sequence", "normalizers": parts}), &mut growth).unwrap();
            growth
        };
        assert_eq!(growth(vec![replace(json!({"String": " "}), "▁")]), 1.0);
        assert_eq!(
            growth(vec![
                replace(json!({"Regex": " {2,}"}), "▁"),
                replace(json!({"String": "``"}), "\"")
            ]),
            1.0
        );
        assert_eq!(growth(vec![replace(json!({"String": "a"}), "aa"); 10]), 1024.0);
    }
}
