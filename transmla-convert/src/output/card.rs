//! The model card: what a hub shows of a converted model, and how it is loaded.

use std::fmt::Write;

use serde_json::{Value, json};
use transmla_core::config::LatentStyle;

use crate::solve::summary;
use crate::spec::options::{Engine, FileFormat};
use crate::spec::plan::Plan;
use crate::spec::serving::remote_code;

/// What a card says beyond what the plan knows.
#[derive(Debug, Clone, Copy)]
pub struct ModelCard<'a> {
    /// The original's id on the hub, if it is from there.
    pub base_model: Option<&'a str>,
    /// The original's name, for people.
    pub name: &'a str,
    /// The text of the calibration.
    pub calibration: &'a str,
    /// The original's card, whose language and licence are carried over.
    pub original: Option<&'a str>,
}

/// Metadata of the original that a conversion does not change, each one word or line, or a list of such.
const CARRIED: [&str; 4] = ["license", "license_name", "license_link", "language"];

/// The contents of `README.md`: metadata as hubs read it, what the model is, and how to load it.
pub fn model_card(plan: &Plan, card: &ModelCard<'_>) -> String {
    let class = match plan.style() {
        LatentStyle::DeepseekV3 => "DeepseekV3ForCausalLM".to_owned(),
        LatentStyle::Family => plan.source().family.latent_class(),
    };
    let (before, after) = plan.cache_numbers();
    let name = markdown(card.name);
    let latent = &plan.latent();
    let method = summary(plan.recipe());
    let code = remote_code(plan);
    let engine = match plan.recipe().file_format() {
        FileFormat::Gguf => Some(Engine::LlamaCpp),
        FileFormat::Safetensors => plan.recipe().engine,
    };
    let load = match engine {
        None | Some(Engine::Transformers) => format!(
            "```python\n\
             from transformers import AutoModelForCausalLM, AutoTokenizer\n\
             model = AutoModelForCausalLM.from_pretrained(\"PATH\"{code})\n\
             tokenizer = AutoTokenizer.from_pretrained(\"PATH\"{code})\n\
             ```\n\n"
        ),
        Some(engine) => format!("Made for {engine}:\n\n```sh\n{}\n```\n\n", engine.command(plan, "PATH")),
    };
    let mut text = metadata(plan, card);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# {name}, with multi-head latent attention\n\n\
         {name} converted from grouped-query to multi-head latent attention (MLA) by \
         [transmla](https://arxiv.org/abs/2502.07864), without training. The KV cache holds {after} numbers per token and \
         layer where the original's holds {before}.\n\n{load}"
    );
    let rows = [
        ("class", format!("`{class}`")),
        ("`kv_lora_rank`", latent.kv_lora_rank.to_string()),
        ("`qk_rope_head_dim`", latent.qk_rope_head_dim.to_string()),
        (
            "`q_lora_rank`",
            latent.q_lora_rank.map_or("none".into(), |rank| rank.to_string()),
        ),
        ("weights", plan.recipe().dtype.to_string()),
        ("method", method),
        ("calibrated on", markdown(card.calibration)),
    ];
    text += "| | |\n| --- | --- |\n";
    for (label, value) in rows {
        let _ = writeln!(text, "| {label} | {value} |");
    }
    text += match plan.style() {
        LatentStyle::DeepseekV3 if plan.latent().biases => {
            "\nThe form is that of stock DeepSeek-V3 with dense layers and biases, which of all engines transformers alone has: the \
             name in `architectures` keeps the others from loading it without them. Its latent norms are the identity by their \
             weights, so they must be applied as the stock code does.\n"
        }
        LatentStyle::DeepseekV3 => {
            "\nThe form is that of stock DeepSeek-V3 with dense layers only. Its latent norms are the identity by their weights, \
             so they must be applied as the stock code does.\n"
        }
        LatentStyle::Family => {
            "\nStock DeepSeek code cannot express this model; `modeling_transmla.py` beside the weights runs it.\n"
        }
    };
    text += "\n`transmla.toml` is the recipe that makes it again. The licence is the original's.\n";
    text
}

/// The front matter, which is YAML; a JSON string is one of its strings.
fn metadata(plan: &Plan, card: &ModelCard<'_>) -> String {
    let library = match plan.recipe().file_format() {
        FileFormat::Safetensors => "transformers",
        FileFormat::Gguf => "gguf",
    };
    let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: text-generation\n");
    if let Some(id) = card.base_model {
        let _ = writeln!(text, "base_model: {}\nbase_model_relation: finetune", json!(id));
    }
    let front = card.original.map(front_matter).unwrap_or_default();
    // A link to somewhere on the machine of its author is none.
    let is_carried = |(key, values): &&(String, Vec<String>)| {
        CARRIED.contains(&key.as_str()) && (key != "license_link" || values.iter().all(|link| !is_local(link)))
    };
    for (key, values) in front.iter().filter(is_carried) {
        let _ = match values.as_slice() {
            [] => Ok(()),
            [value] => writeln!(text, "{key}: {}", scalar(value)),
            list => {
                let items: String = list.iter().map(|value| format!("- {}\n", scalar(value))).collect();
                write!(text, "{key}:\n{items}")
            }
        };
    }
    let tags: [Value; 3] = [json!("transmla"), json!("mla"), json!(plan.converted().model_type)];
    text += "tags:\n";
    for tag in tags {
        let _ = writeln!(text, "- {tag}");
    }
    text + "---\n\n"
}

/// A text that Markdown shows as it is, on one line and in one cell of a table.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\\' | '`' | '*' | '_' | '[' | ']' | '<' | '>' | '|' | '#' | '!' | '~' | '&' | '$' => {
                out.push('\\');
                out.push(character);
            }
            control if control.is_control() || is_line_end(control) => out.push(' '),
            // What turns the direction of a text.
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => {}
            plain => out.push(plain),
        }
    }
    out
}

/// Whether a link is a path that starts at the root of a file system or at a home folder.
fn is_local(link: &str) -> bool {
    link.starts_with(['/', '\\', '~']) || link.starts_with("file:") || link.as_bytes().get(1) == Some(&b':')
}

/// A value as YAML has it: words as they are, everything else as a JSON string.
fn scalar(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_' | b'+');
    let reads_otherwise = ["no", "yes", "on", "off", "true", "false", "null", "y", "n"];
    let is_word = value.starts_with(|first: char| first.is_ascii_alphabetic())
        && value.bytes().all(plain)
        && !reads_otherwise.contains(&value.to_ascii_lowercase().as_str());
    match is_word {
        true => value.to_owned(),
        false => json!(value).to_string(),
    }
}

fn is_line_end(character: char) -> bool {
    matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The keys of a card's front matter with their values, as far as those are words, lines or lists of them; none if it has
/// no front matter.
///
/// It is not read as YAML, of which somebody else's file may hold anything.
fn front_matter(card: &str) -> Vec<(String, Vec<String>)> {
    let card = card.strip_prefix('\u{feff}').unwrap_or(card);
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut keys: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        if line.trim_end() == "---" {
            return keys;
        }
        let item = line.trim_start().strip_prefix("- ").and_then(value);
        match (line.starts_with([' ', '-', '\t']), keys.last_mut()) {
            (true, Some((_, values))) => values.extend(item),
            (true, None) => {}
            (false, _) => {
                let (key, rest) = line.split_once(':').unwrap_or((line, ""));
                let flow = rest.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                let values = match flow {
                    Some(items) => items.split(',').filter_map(value).collect(),
                    None => value(rest).into_iter().collect(),
                };
                keys.push((key.to_owned(), values));
            }
        }
    }
    // Never closed: text that happens to begin with a rule.
    Vec::new()
}

/// A value on one line, without its quotes; nothing if it is empty or something else of YAML's.
fn value(text: &str) -> Option<String> {
    let text = text.trim();
    let quoted = |mark: char| text.strip_prefix(mark)?.strip_suffix(mark);
    let text = quoted('"').or_else(|| quoted('\'')).unwrap_or(text);
    let other = text.starts_with(['&', '*', '!', '|', '>', '{', '[', '%', '@', '`', '#', '"', '\'']);
    let unusable = |character: char| character.is_control() || is_line_end(character);
    (!text.is_empty() && !other && text.len() <= 500 && !text.contains(unusable)).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_cut_into_keys() {
        let card = "---\nlicense: mit\nlanguage:\n- en\n- \"no\"\ntags:\n  - x\nlicense_link: 'https://a.b/c'\nx: [a, b]\n---\n# Title\nlicense: none\n";
        let keys: Vec<(String, Vec<String>)> = front_matter(card);
        let expected = [
            ("license", &["mit"][..]),
            ("language", &["en", "no"]),
            ("tags", &["x"]),
            ("license_link", &["https://a.b/c"]),
            ("x", &["a", "b"]),
        ];
        let found: Vec<(&str, Vec<&str>)> = keys
            .iter()
            .map(|(key, values)| (key.as_str(), values.iter().map(String::as_str).collect()))
            .collect();
        assert_eq!(found, expected.map(|(key, values)| (key, values.to_vec())));
        assert!(front_matter("---\nlicense: mit\n").is_empty());
        assert!(front_matter("# Title\n---\nlicense: mit\n---\n").is_empty());
    }

    #[test]
    fn values_are_no_more_than_values() {
        for (given, expected) in [
            ("apache-2.0", "apache-2.0"),
            ("no", "\"no\""),
            ("2.0", "\"2.0\""),
            ("a: b", "\"a: b\""),
            ("x\"y", r#""x\"y""#),
        ] {
            assert_eq!(scalar(given), expected);
        }
        for text in [
            "",
            "!!python/object:os.system",
            "&a",
            "*a",
            "{a: b}",
            "|",
            "a\u{1b}b",
            "a\u{2028}b",
        ] {
            assert_eq!(value(text), None, "{text:?}");
        }
    }

    #[test]
    fn names_are_shown_as_they_are() {
        assert_eq!(markdown("SmolLM2-135M"), "SmolLM2-135M");
        let name = "a|b`c`<script>[x](y)\n# z\u{1b}[m";
        assert_eq!(markdown(name), r"a\|b\`c\`\<script\>\[x\](y) \# z \[m");
    }
}
