//! Tokenising long texts piece by piece.
//!
//! A tokenizer takes about a hundred bytes of memory for each byte of text. A long text is tokenised in overlapping windows.
//! Where two windows agree on several tokens in a row, well inside both, the second takes over from the first. The result is
//! that of tokenising the whole text at once.

use crate::error::CalibError;
use crate::text::tokens::guarded::{GuardedTokenizer, Token};

/// How rows become one text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Joining {
    /// The text between rows.
    pub between: &'static str,
    /// Whether the tokenizer puts its special tokens around the whole.
    pub special: bool,
}

impl Joining {
    /// Rows of plain text: an empty line between them, special tokens around them.
    pub const PLAIN: Self = Self {
        between: "\n\n",
        special: true,
    };

    /// Rows that bring their special tokens along: they follow each other as they are.
    pub const TEMPLATED: Self = Self {
        between: "",
        special: false,
    };

    /// The same without special tokens around the whole.
    pub const fn bare(self) -> Self {
        Self { special: false, ..self }
    }
}

/// The sizes of windows, in bytes of text.
#[derive(Debug, Clone, Copy)]
struct Sizes {
    /// Length of a window without its overlap with the next one.
    block: usize,
    /// Half of that overlap.
    overlap: usize,
}

const LARGEST: Sizes = Sizes {
    block: 128 << 10,
    overlap: 4 << 10,
};

/// Bytes of text read for each token that is wanted; generous.
const BYTES_PER_TOKEN: usize = 8;

/// Number of tokens in a row on which two windows must agree where one takes over.
const SAME: usize = 8;

/// The ids of rows joined: all of them, or at least the first `enough`.
pub(crate) fn encode<'a>(
    tokenizer: &GuardedTokenizer,
    rows: impl IntoIterator<Item = &'a str>,
    joining: Joining,
    enough: Option<usize>,
) -> Result<Vec<u32>, CalibError> {
    let block = match enough {
        Some(tokens) => tokens
            .saturating_mul(BYTES_PER_TOKEN)
            .clamp(4 * LARGEST.overlap, LARGEST.block),
        None => LARGEST.block,
    };
    encode_in(tokenizer, rows.into_iter(), joining, enough, Sizes { block, ..LARGEST })
}

fn encode_in<'a>(
    tokenizer: &GuardedTokenizer,
    rows: impl Iterator<Item = &'a str>,
    joining: Joining,
    enough: Option<usize>,
    sizes: Sizes,
) -> Result<Vec<u32>, CalibError> {
    let add_special = joining.special;
    let mut window = Window {
        between: joining.between,
        text: String::new(),
        rest: "",
        rows,
        begun: false,
    };
    let target = sizes.block + 2 * sizes.overlap;
    if window.fill(target) {
        return tokenizer.encode_whole(&window.text, add_special);
    }
    let Some((before, after)) = tokenizer
        .around()
        .filter(|_| add_special)
        .cloned()
        .or((!add_special).then(Default::default))
    else {
        // The special tokens depend on the text, so it must be tokenised as a whole.
        window.fill(usize::MAX);
        return tokenizer.encode_whole(&window.text, add_special);
    };
    let enough = enough.unwrap_or(usize::MAX);
    let mut ids: Vec<u32> = before;
    let mut held: Vec<Token> = Vec::new();
    let mut last = false;
    loop {
        let tokens = tokenizer.encode_places(&window.text)?;
        let (from_held, from) = takeover(&held, &tokens, sizes.overlap);
        ids.extend(held[..from_held].iter().map(|token| token.id));
        if last {
            ids.extend(tokens[from..].iter().map(|token| token.id));
            ids.extend(after);
            return Ok(ids);
        }
        let next = boundary(&window.text, window.text.len() - 2 * sizes.overlap);
        let sure = tokens
            .partition_point(|token| token.start < next + sizes.overlap / 2)
            .max(from);
        ids.extend(tokens[from..sure].iter().map(|token| token.id));
        if ids.len() >= enough {
            return Ok(ids);
        }
        held = tokens[sure..]
            .iter()
            .map(|token| Token {
                start: token.start.saturating_sub(next),
                ..*token
            })
            .collect();
        window.text.drain(..next);
        last = window.fill(target);
    }
}

/// Where the second window takes over: the number of held tokens of the first that are used, and the index of its own token
/// from which on it is used.
fn takeover(held: &[Token], tokens: &[Token], overlap: usize) -> (usize, usize) {
    if held.is_empty() {
        return (0, 0);
    }
    let begins = |tokens: &[Token], at: usize| at == 0 || tokens[at - 1].start < tokens[at].start;
    let mut at = 0;
    for (index, token) in held.iter().enumerate() {
        while tokens.get(at).is_some_and(|other| other.start < token.start) {
            at += 1;
        }
        let same = SAME.min(held.len() - index);
        if tokens.get(at..at + same) == Some(&held[index..index + same]) && begins(held, index) && begins(tokens, at) {
            return (index, at);
        }
    }
    // They never agree: the text is one long word to the tokenizer and is cut somewhere.
    let behind = |tokens: &[Token]| tokens.partition_point(|token| token.start < overlap);
    (behind(held), behind(tokens))
}

/// The last character boundary at or before `at`.
fn boundary(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

struct Window<'a, I> {
    /// The text between rows.
    between: &'static str,
    text: String,
    /// What is left of the current row.
    rest: &'a str,
    rows: I,
    /// Whether a row has been started.
    begun: bool,
}

impl<'a, I: Iterator<Item = &'a str>> Window<'a, I> {
    /// Adds text of the rows until there are `target` bytes; returns whether the rows have ended.
    fn fill(&mut self, target: usize) -> bool {
        loop {
            let room = target.saturating_sub(self.text.len());
            if self.rest.len() > room {
                let cut = boundary(self.rest, room);
                self.text.push_str(&self.rest[..cut]);
                self.rest = &self.rest[cut..];
                return false;
            }
            self.text.push_str(self.rest);
            let Some(row) = self.rows.next() else {
                self.rest = "";
                return true;
            };
            if std::mem::replace(&mut self.begun, true) {
                self.text.push_str(self.between);
            }
            self.rest = row;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};
    use std::path::Path;
    use std::sync::LazyLock;

    fn story_tokenizer(change: impl Fn(&mut Value)) -> GuardedTokenizer {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k/tokenizer.json");
        let mut file: Value = serde_json::from_slice(&std::fs::read(file).unwrap()).unwrap();
        change(&mut file);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, file.to_string()).unwrap();
        GuardedTokenizer::open(&path).unwrap()
    }

    /// One that never splits a text before merging, one of the GPT-2 kind, one by words that changes what it reads.
    static TOKENIZERS: LazyLock<[GuardedTokenizer; 3]> = LazyLock::new(|| {
        let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
        [
            story_tokenizer(|_| ()),
            story_tokenizer(|file| {
                file["normalizer"] = json!({"type": "NFC"});
                file["pre_tokenizer"] = level.clone();
                file["model"]["unk_token"] = json!("<unk>");
            }),
            story_tokenizer(|file| {
                file["normalizer"] = json!({"type": "Sequence", "normalizers": [
                    {"type": "NFKD"}, {"type": "Lowercase"}, {"type": "StripAccents"}]});
                file["pre_tokenizer"] =
                    json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
            }),
        ]
    });

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(96))]

        #[test]
        fn pieces_give_what_the_whole_gives(
            rows in proptest::collection::vec("([a-z]{1,9}[ .,]|[A-Z][a-z]+ |é|  |🦀|</s>|\n){0,60}", 1..40),
            block in 600_usize..2000,
            special: bool,
            templated: bool,
        ) {
            let joining = if templated { Joining::TEMPLATED } else { Joining::PLAIN };
            let joining = Joining { special, ..joining };
            let whole = rows.join(joining.between);
            let sizes = Sizes { block, overlap: 128 };
            for tokenizer in TOKENIZERS.iter() {
                let expected = tokenizer.encode_whole(&whole, special).unwrap();
                let rows = || rows.iter().map(String::as_str);
                prop_assert_eq!(&encode_in(tokenizer, rows(), joining, None, sizes).unwrap(), &expected);
                let some = encode_in(tokenizer, rows(), joining, Some(100), sizes).unwrap();
                prop_assert!(expected.starts_with(&some) && some.len() >= expected.len().min(100));
            }
        }
    }

    #[test]
    fn a_text_that_is_one_word_is_cut_somewhere() {
        let text = "once".repeat(5000);
        let sizes = Sizes {
            block: 1000,
            overlap: 64,
        };
        for tokenizer in TOKENIZERS.iter() {
            let ids = encode_in(
                tokenizer,
                [text.as_str()].into_iter(),
                Joining::PLAIN.bare(),
                None,
                sizes,
            )
            .unwrap();
            let whole = tokenizer.encode_whole(&text, false).unwrap();
            assert!(ids.len().abs_diff(whole.len()) < 60, "{} {}", ids.len(), whole.len());
        }
    }
}
