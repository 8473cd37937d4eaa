//! Lines as wide as a terminal.

use console::measure_text_width;

/// Fewest columns that a text is folded to.
const FEWEST: usize = 30;

/// A text whose lines have at most so many columns. What does not fit goes on in the next line, below the value of a row of a
/// table, otherwise a little to the right. Words that are too long for a line of their own, such as paths, are shortened.
pub(super) fn fold(text: &str, columns: usize) -> String {
    let columns = columns.max(FEWEST);
    let lines: Vec<String> = text.split('\n').map(|line| folded(line, columns)).collect();
    lines.join("\n")
}

fn folded(line: &str, columns: usize) -> String {
    if measure_text_width(line) <= columns {
        return line.to_owned();
    }
    let indent = hanging_indent(line).min(columns / 2);
    let room = columns - indent;
    let start = line.len() - line.trim_start_matches(' ').len();
    let mut out = line[..start].to_owned();
    let mut used = start;
    let mut first = true;
    // A number stays with its per cent.
    let line = line[start..].replace(" %", "\u{a0}%");
    for word in line.split(' ') {
        let word = shortened(&word.replace('\u{a0}', " "), room);
        let width = measure_text_width(&word);
        match first {
            true => first = false,
            false if used + 1 + width > columns => {
                out.truncate(out.trim_end_matches(' ').len());
                out.push('\n');
                out.push_str(&" ".repeat(indent));
                used = indent;
            }
            false => {
                out.push(' ');
                used += 1;
            }
        }
        out.push_str(&word);
        used += width;
    }
    out
}

/// Where a line goes on: at the value behind a label, which two spaces or more part from it, or two columns further in.
fn hanging_indent(line: &str) -> usize {
    let label = line.trim_start_matches(' ');
    let start = line.len() - label.len();
    let value = label.find("  ").map(|gap| {
        let rest = label[gap..].trim_start_matches(' ');
        measure_text_width(&line[..line.len() - rest.len()])
    });
    match (start, value) {
        (1.., Some(value)) => value,
        // A further line of the row above.
        (5.., None) => start,
        _ => start + 2,
    }
}

/// A word of at most so many columns: what is too much is left out of the middle.
pub fn shortened(word: &str, columns: usize) -> String {
    if measure_text_width(word) <= columns {
        return word.to_owned();
    }
    let room = columns.saturating_sub(1);
    let (mut head, mut tail) = (String::new(), Vec::new());
    // The end of a path says more than its start.
    let for_head = room / 3;
    for character in word.chars() {
        if measure_text_width(&head) + measure_text_width(character.encode_utf8(&mut [0; 4])) > for_head {
            break;
        }
        head.push(character);
    }
    let mut left = room - measure_text_width(&head);
    for character in word.chars().rev() {
        let width = measure_text_width(character.encode_utf8(&mut [0; 4]));
        if width > left {
            break;
        }
        left -= width;
        tail.push(character);
    }
    head.push('…');
    head.extend(tail.into_iter().rev());
    head
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_fit_are_left() {
        let text = "Plan: a -> b\n  label      value\n\n    x  y  z";
        assert_eq!(fold(text, 40), text);
    }

    #[test]
    fn values_go_on_below_themselves() {
        let folded = fold("  label    one two three four five six", 30);
        assert_eq!(folded, "  label    one two three four\n           five six");
        let folded = fold("error: this is a sentence that is long", 30);
        assert_eq!(folded, "error: this is a sentence that\n  is long");
        let folded = fold("           one two threes 4.5 % of all", 30);
        assert_eq!(folded, "           one two threes\n           4.5 % of all");
        let folded = fold("           one two three four five", 30);
        assert_eq!(folded, "           one two three four\n           five");
        for columns in 30..60 {
            let folded = fold(
                "  caused by: cannot read /a/path/that/is/very/very/long/indeed.txt of x",
                columns,
            );
            assert!(
                folded.lines().all(|line| measure_text_width(line) <= columns),
                "{folded}"
            );
        }
    }

    #[test]
    fn long_words_keep_their_ends() {
        assert_eq!(shortened("/home/somebody/models/converted", 16), "/home…/converted");
        assert_eq!(shortened("short", 5), "short");
        // Half of a wide character does not fit.
        assert_eq!(shortened("日本語日本語日本語", 8), "日…本語");
    }
}
