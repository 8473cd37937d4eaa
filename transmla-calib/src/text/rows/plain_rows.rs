//! Plain text: the paragraphs are the rows, or the lines if there are no blank lines between them.

use std::path::Path;

use crate::error::CalibError;
use crate::text::open::decompressed;
use crate::text::rows::collected::{OVERHEAD, Rows};
use crate::text::rows::unicode::{LineEnd, Utf8, read_line};

/// Reads paragraphs, that is, runs of lines that are not blank. If no blank line stands between lines, each line is a row.
pub(crate) fn read(path: &Path, rows: &mut Rows) -> Result<(), CalibError> {
    let fail = |e| CalibError::reading(path, e);
    let mut reader = Utf8::new(decompressed(path)?, true).map_err(fail)?;
    let limits = rows.limits;
    let mut state = Paragraphs::default();
    let mut line = Vec::new();
    let mut goes_on = false;
    while !rows.is_full() && state.cost() < limits.text {
        let end = read_line(&mut reader, &mut line, limits.line.max(limits.document)).map_err(fail)?;
        if end == LineEnd::Nothing {
            break;
        }
        let text = std::str::from_utf8(&line).map_err(|e| CalibError::undecodable(path, e.to_string(), e))?;
        state.line(text, goes_on, rows);
        goes_on = end == LineEnd::GoesOn;
    }
    let what = state.finish(rows);
    if let Some(remark) = reader.encoding().remark() {
        rows.remark(remark.to_owned());
    }
    rows.column(what);
    Ok(())
}

/// Groups lines into rows.
#[derive(Default)]
struct Paragraphs {
    /// The lines of the current paragraph.
    lines: Vec<String>,
    /// Their bytes.
    taken: usize,
    /// Whether there was a blank line between two lines of text.
    divided: bool,
    /// Whether a blank line follows the lines.
    ended: bool,
}

impl Paragraphs {
    fn line(&mut self, text: &str, goes_on: bool, rows: &mut Rows) {
        if goes_on {
            // A part of a line too long to be read at once; white space alone is not a blank line here.
            self.add(text);
        } else if text.trim().is_empty() {
            self.ended = !self.lines.is_empty();
            if self.ended && self.divided {
                self.paragraph(rows);
            }
        } else {
            if self.ended {
                self.divided = true;
                self.paragraph(rows);
            }
            self.add(text);
        }
        // Once the rows are known to be paragraphs, a long one may be split.
        if self.divided && self.taken >= rows.limits.document {
            self.paragraph(rows);
        }
    }

    fn add(&mut self, text: &str) {
        self.taken += text.len() + 1;
        self.lines.push(text.to_owned());
    }

    /// Approximate memory of the lines, in bytes.
    fn cost(&self) -> usize {
        self.taken + OVERHEAD * self.lines.len()
    }

    fn paragraph(&mut self, rows: &mut Rows) {
        self.ended = false;
        self.taken = 0;
        if !self.lines.is_empty() {
            let paragraph = self.lines.join("\n");
            self.lines.clear();
            rows.push(paragraph);
        }
    }

    /// Adds what is left; returns what the rows are, "paragraphs" or "lines".
    fn finish(mut self, rows: &mut Rows) -> &'static str {
        if self.divided || self.lines.len() < 2 && self.taken <= rows.limits.line {
            self.paragraph(rows);
            return "paragraphs";
        }
        let limit = rows.limits.line;
        for line in self.lines.drain(..) {
            if rows.is_full() {
                break;
            }
            rows.push_within(line, limit);
        }
        "lines"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::rows::collected::Limits;

    fn read_with(bytes: &[u8], limits: Limits) -> Result<Rows, CalibError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, bytes).unwrap();
        let mut rows = Rows::within(limits);
        read(&path, &mut rows).map(|()| rows)
    }

    fn rows(bytes: &[u8]) -> (Vec<String>, String) {
        let rows = read_with(bytes, Limits::default()).unwrap();
        (rows.rows, rows.columns.join(" "))
    }

    #[test]
    fn paragraphs_are_rows() {
        let (found, what) = rows(b"\n\nOne\r\ngoes on.\r\n\r\n \t\nTwo.\n\n\n");
        assert_eq!(found, ["One\ngoes on.", "Two."]);
        assert_eq!(what, "paragraphs");
        assert!(rows(b"").0.is_empty());
        assert_eq!(rows(b"One line.\n").0, ["One line."]);
        assert_eq!(rows(b"\xef\xbb\xbfOne.\r\n\r\nTwo.\r\n").0, ["One.", "Two."]);
    }

    #[test]
    fn lines_are_rows_where_no_blank_line_stands_between() {
        for text in ["One.\nTwo.\nThree.", "\n\nOne.\r\nTwo.\r\nThree.\r\n\r\n"] {
            let (found, what) = rows(text.as_bytes());
            assert_eq!(found, ["One.", "Two.", "Three."]);
            assert_eq!(what, "lines");
        }
    }

    #[test]
    fn long_lines_and_paragraphs_become_several_rows() {
        let limits = Limits {
            document: 20,
            line: 8,
            ..Limits::default()
        };
        let found = read_with(b"one two three four five six seven", limits).unwrap();
        assert_eq!(found.rows.concat(), "one two three four five six seven");
        assert!(
            found.rows.len() > 3 && found.rows.iter().all(|row| row.len() <= 8),
            "{found:?}"
        );
        let text = format!("first\n\n{}\n\nlast", "word ".repeat(20));
        let found = read_with(text.as_bytes(), limits).unwrap();
        assert_eq!(found.rows.first().unwrap(), "first");
        assert_eq!(found.rows.last().unwrap(), "last");
        assert!(
            found.rows.len() > 5 && found.rows.iter().all(|row| row.len() <= 24),
            "{found:?}"
        );
        // No more of it than asked for.
        let few = Limits { text: 200, ..limits };
        assert!(read_with(&b"word ".repeat(1000), few).unwrap().rows.len() < 10);
    }

    #[test]
    fn other_encodings_are_told() {
        let found = read_with(b"caf\xe9\n\nna\xefve", Limits::default()).unwrap();
        assert_eq!(found.rows, ["café", "naïve"]);
        assert_eq!(found.remarks, ["read as windows-1252"]);
        let error = read_with(
            "naïve\nnot \u{fffd} fine".replace('\u{fffd}', "\0").as_bytes(),
            Limits::default(),
        );
        assert!(error.is_ok(), "a zero is a character");
        let bytes = ["naïve\nnot ".as_bytes(), b"\xff fine"].concat();
        let error = read_with(&bytes, Limits::default()).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
