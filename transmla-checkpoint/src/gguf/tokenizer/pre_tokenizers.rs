//! How byte-level tokenizers split text into words, by llama.cpp's name for it (`tokenizer.ggml.pre`).

use serde_json::{Value, json};

/// A way of splitting.
pub(super) struct Splitting {
    /// What is done to the text first.
    pub normalizer: Value,
    pub pre_tokenizer: Value,
    /// Whether words that are tokens are taken whole.
    pub ignore_merges: bool,
    /// Whether a text begins with BOS where no key says it.
    pub begins: bool,
}

/// Words, numbers of up to three digits, punctuation with the lines behind it, space: Llama 3's.
const LLAMA_3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// As Llama 3's, digits one by one: Qwen's.
const QWEN_2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Words by the case of their letters: Mistral's Tekken.
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// Names that are known, for messages.
pub(super) const KNOWN: &str = "llama-bpe, qwen2, gpt-2, smollm, tekken and those that split as they do";

/// The way of this name.
pub(super) fn of_name(name: &str) -> Option<Splitting> {
    let plain = |normalizer, pre_tokenizer| Splitting {
        normalizer,
        pre_tokenizer,
        ignore_merges: false,
        begins: false,
    };
    Some(match name {
        "llama-bpe" | "llama3" | "llama-v3" | "falcon3" | "pixtral" | "dbrx" | "smaug-bpe" => Splitting {
            ignore_merges: true,
            begins: true,
            ..plain(Value::Null, by_pattern(LLAMA_3))
        },
        "qwen2" | "deepseek-r1-qwen" | "megrez" => plain(json!({"type": "NFC"}), by_pattern(QWEN_2)),
        "tekken" => Splitting {
            ignore_merges: true,
            begins: true,
            ..plain(Value::Null, by_pattern(TEKKEN))
        },
        "gpt-2" | "mpt" | "olmo" | "jais" | "phi-2" => plain(Value::Null, byte_level(true)),
        "smollm" | "starcoder" | "refact" | "command-r" | "codeshell" => {
            let digits = json!({"type": "Digits", "individual_digits": true});
            plain(
                Value::Null,
                json!({"type": "Sequence", "pretokenizers": [digits, byte_level(true)]}),
            )
        }
        _ => return None,
    })
}

fn by_pattern(pattern: &str) -> Value {
    let split = json!({"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": false});
    json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]})
}

/// Bytes as characters; with the pattern of GPT-2 or after another one.
pub(super) fn byte_level(use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex})
}
