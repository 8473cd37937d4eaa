//! Streamed text is the text decoded at once.

use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use transmla_calib::TextTokenizer;

use crate::TOKENIZER;

/// A tokenizer of the GPT-2 kind with one token a byte, so that most characters take several.
static BYTES: LazyLock<TextTokenizer> = LazyLock::new(|| {
    let mut alphabet: Vec<char> = ByteLevel::alphabet().into_iter().collect();
    alphabet.sort_unstable();
    let vocab: Map<String, Value> = alphabet
        .iter()
        .enumerate()
        .map(|(id, letter)| (letter.to_string(), id.into()))
        .collect();
    let level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let file = json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "!"},
        "added_tokens": [], "normalizer": null, "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {"type": "BPE", "vocab": vocab, "merges": []},
    });
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).unwrap();
    TextTokenizer::from_folder(folder.path()).unwrap()
});

fn streamed(tokenizer: &TextTokenizer, prompt: &[u32], ids: &[u32]) -> Vec<String> {
    let mut stream = tokenizer.stream(true);
    stream.prime(prompt);
    let mut chunks: Vec<String> = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
    chunks.extend(stream.finish().unwrap());
    chunks
}

proptest! {
    #[test]
    fn chunks_add_up(text in "([a-z ]|\\PC){0,40}") {
        for tokenizer in [&*TOKENIZER, &*BYTES] {
            let ids = tokenizer.encode(&text, true).unwrap();
            prop_assert_eq!(streamed(tokenizer, &[], &ids).concat(), tokenizer.decode(&ids, true).unwrap());
        }
    }

    #[test]
    fn a_prompt_gives_its_context_and_no_text(text in "[a-zé ]{2,40}", cut in 1_usize..8) {
        for tokenizer in [&*TOKENIZER, &*BYTES] {
            let ids = tokenizer.encode(&text, true).unwrap();
            let (prompt, rest) = ids.split_at(cut.min(ids.len() - 1));
            let before = tokenizer.decode(prompt, true).unwrap();
            // A cut inside a character leaves its first half without text.
            if let Some(expected) = tokenizer.decode(&ids, true).unwrap().strip_prefix(&before) {
                prop_assert_eq!(streamed(tokenizer, prompt, rest).concat(), expected);
            }
        }
    }

    #[test]
    fn any_ids_give_text(ids in proptest::collection::vec(0_u32..600, 0..60)) {
        for tokenizer in [&*TOKENIZER, &*BYTES] {
            streamed(tokenizer, &[], &ids);
        }
    }
}

#[test]
fn characters_come_whole() {
    let ids = BYTES.encode("né €5 🦀!", true).unwrap();
    assert_eq!(ids.len(), 14, "neither truncated nor padded, whatever the file says");
    assert_eq!(streamed(&BYTES, &[], &ids), ["n", "é", " ", "€", "5", " ", "🦀", "!"]);
    // Half a character at the end is given out at the end.
    assert_eq!(streamed(&BYTES, &[], &ids[..2]).len(), 2);
}

#[test]
fn words_keep_their_spaces() {
    let ids = TOKENIZER.encode("Once upon a time", true).unwrap();
    let chunks = streamed(&TOKENIZER, &[], &ids);
    assert!(chunks.len() > 2);
    assert_eq!(chunks.concat(), "Once upon a time");
    let (prompt, rest) = ids.split_at(3);
    let before = TOKENIZER.decode(prompt, true).unwrap();
    assert_eq!(
        before + &streamed(&TOKENIZER, prompt, rest).concat(),
        "Once upon a time"
    );
    assert_eq!(TOKENIZER.vocab_size(), 512);
    assert_eq!(TOKENIZER.id_of("</s>"), Some(2));
}
