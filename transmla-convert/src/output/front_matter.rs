//! The front matter of a model card, as far as it is words, lines and lists of them: YAML's simplest part.

use serde_json::json;

/// A value as YAML has it: words as they are, everything else as a JSON string.
pub(crate) fn scalar(value: &str) -> String {
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

pub(crate) fn is_line_end(character: char) -> bool {
    matches!(character, '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// The keys of a card's front matter with their values, as far as those are words, lines or lists of them; none if it has
/// no front matter.
///
/// It is not read as YAML, of which somebody else's file may hold anything.
pub(crate) fn front_matter(card: &str) -> Vec<(String, Vec<String>)> {
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

/// Whether a link is a path that starts at the root of a file system or at a home folder.
pub(crate) fn is_local(link: &str) -> bool {
    link.starts_with(['/', '\\', '~']) || link.starts_with("file:") || link.as_bytes().get(1) == Some(&b':')
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
}
