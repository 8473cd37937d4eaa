//! What a tokenizer file asks for, checked before the tokenizer is built.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// Largest factor by which the replacements of a tokenizer, applied in sequence, may lengthen a text.
const GROWTH: f64 = 64.0;

/// Most bytes of a prefix or suffix that is added to words.
const AFFIX: usize = 256;

/// Most special tokens around a text.
const AROUND: usize = 256;

/// Longest word, in characters, that a WordPiece model may have to split; the time grows with its square.
const WORD: u64 = 10_000;

/// Why a tokenizer file is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Flaw(String);

/// The parts of a tokenizer file that are checked: all but the vocabulary.
#[derive(Deserialize)]
pub(crate) struct TokenizerParts {
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

impl TokenizerParts {
    /// Refuses what the tokenizers crate would run out of memory or time on.
    pub fn check(&self) -> Result<(), Flaw> {
        for part in [
            &self.normalizer,
            &self.pre_tokenizer,
            &self.post_processor,
            &self.decoder,
        ] {
            let mut growth = 1.0;
            check_part(part, &mut growth)?;
            if growth > GROWTH {
                return Err(Flaw(format!(
                    "its replacements make {growth:.0} characters of one, at most {GROWTH} are possible"
                )));
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
            Some(most) if most > WORD => Err(Flaw(format!(
                "max_input_chars_per_word is {most}, at most {WORD} is possible"
            ))),
            _ => Ok(()),
        }
    }
}

fn check_affix(affix: &str) -> Result<(), Flaw> {
    match affix.len() > AFFIX {
        true => Err(Flaw(format!(
            "a prefix or suffix of {} bytes, at most {AFFIX} are possible",
            affix.len()
        ))),
        false => Ok(()),
    }
}

/// Checks a part and its parts; `growth` is multiplied by the factor by which their replacements may lengthen a text.
fn check_part(part: &Value, growth: &mut f64) -> Result<(), Flaw> {
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

/// Checks a template, which puts the ids of all its special tokens around every text.
fn check_template(template: Option<&Value>, tokens: &Value) -> Result<(), Flaw> {
    let pieces = template.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let ids_of = |piece: &Value| {
        let name = piece.get("SpecialToken")?.get("id")?.as_str()?;
        Some(tokens.get(name)?.get("ids")?.as_array()?.len())
    };
    let around: usize = pieces.iter().map(|piece| ids_of(piece).unwrap_or(1)).sum();
    match around > AROUND {
        true => Err(Flaw(format!(
            "its template puts {around} special tokens around a text, at most {AROUND} are possible"
        ))),
        false => Ok(()),
    }
}

/// Checks a character map, which begins with the size of a table that is allocated before it is read.
fn check_charsmap(map: &str) -> Result<(), Flaw> {
    let bytes = map.len() as u64 / 4 * 3;
    let begins = map.as_bytes().get(..8).and_then(first_bytes);
    let Some(table) = begins.map(u64::from) else {
        return Err(Flaw("its precompiled_charsmap is too short".into()));
    };
    if table < 4 || table + 4 > bytes {
        return Err(Flaw(format!(
            "its precompiled_charsmap of about {bytes} bytes has a table of {table}"
        )));
    }
    Ok(())
}

/// The first four bytes of eight base64 digits, as a little-endian number.
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
    // Forty-eight bits, six bytes, the first in the highest place.
    Some(((bits >> 16) as u32).swap_bytes())
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
