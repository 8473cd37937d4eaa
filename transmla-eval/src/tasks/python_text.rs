//! Text as Python's methods of strings change it, where Rust's differ.

/// Python's `str.isspace` for a character: Unicode white space, and the four separators of ASCII.
pub fn is_space(letter: char) -> bool {
    letter.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&letter)
}

/// `str.strip`.
pub fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

/// A text without the white space at its end, and that white space.
pub fn split_end(text: &str) -> (&str, &str) {
    text.split_at(text.trim_end_matches(is_space).len())
}

/// `str.capitalize`: the first character in title case, the others in lower case.
pub fn capitalize(text: &str) -> String {
    let Some(first) = text.chars().next() else {
        return String::new();
    };
    // Lower case depends on what stands around a letter (the final sigma of Greek), so that it is that of the whole text.
    let mut lower = text.to_lowercase();
    let lowered: String = first.to_lowercase().collect();
    lower.replace_range(..lowered.len(), &title(first));
    lower
}

/// Title case of one character: of letters that are two in one, only the first is large.
fn title(letter: char) -> String {
    let code = u32::from(letter);
    match code {
        // Croatian digraphs, each large, in title case and small.
        0x1c4..=0x1cc => ['\u{1c5}', '\u{1c8}', '\u{1cb}'][(code as usize - 0x1c4) / 3].to_string(),
        0x1f1..=0x1f3 => '\u{1f2}'.to_string(),
        // Georgian has no title case, and Greek letters with an iota below have one of their own.
        0x10d0..=0x10ff => letter.to_string(),
        0x1f80..=0x1faf => char::from_u32(code | 8).unwrap_or(letter).to_string(),
        0x1fb3 | 0x1fc3 | 0x1ff3 => char::from_u32(code + 9).unwrap_or(letter).to_string(),
        0x1fbc | 0x1fcc | 0x1ffc => letter.to_string(),
        _ => {
            let mut upper = letter.to_uppercase();
            let first: String = upper.next().into_iter().collect();
            first + &upper.flat_map(char::to_lowercase).collect::<String>()
        }
    }
}

/// HellaSwag's text without the marks of its source: `[title]` ends a sentence, other brackets vanish.
pub fn without_brackets(text: &str) -> String {
    let text = strip(text).replace(" [title]", ". ");
    let mut kept = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(start) = rest.find('[') {
        let (before, bracket) = rest.split_at(start);
        kept.push_str(before);
        match bracket.find(']').filter(|end| !bracket[..*end].contains('\n')) {
            Some(end) => rest = &bracket[end + 1..],
            None => {
                kept.push('[');
                rest = &bracket[1..];
            }
        }
    }
    kept.push_str(rest);
    kept.replace("  ", " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of CPython 3.11.
    #[test]
    fn texts_are_pythons() {
        assert_eq!(strip("\u{1c}\u{a0} a \u{85}\u{3000}"), "a");
        assert_eq!(strip("\u{200b}a"), "\u{200b}a");
        assert_eq!(split_end("a b \u{a0}\n"), ("a b", " \u{a0}\n"));
        for (text, expected) in [
            ("ΟΔΟΣ AND İ then", "Οδος and i\u{307} then"),
            ("ǆungla", "ǅungla"),
            ("ßA", "Ssa"),
            ("ﬁNE", "Fine"),
            ("ᾳ", "ᾼ"),
            ("İS", "İs"),
            ("", ""),
            (" Next", " next"),
        ] {
            assert_eq!(capitalize(text), expected);
        }
    }

    #[test]
    fn brackets_vanish() {
        assert_eq!(without_brackets(" [header] How to [title] Go [step]"), " How to. Go ");
        assert_eq!(without_brackets("a [b\nc] d]"), "a [b\nc] d]");
        assert_eq!(without_brackets("[a [b] c]   d"), " c]  d");
        assert_eq!(without_brackets("[header]"), "");
    }
}
