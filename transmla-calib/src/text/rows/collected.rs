//! Rows collected within limits.

use serde_json::Value;

use crate::error::CalibError;
use crate::text::rows::chat::{RowValue, row_value};
use crate::text::rows::chat_form::ChatForm;

/// Limits on what is read, in bytes of UTF-8.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Limits {
    /// Longest row; a longer one is split.
    pub document: usize,
    /// Longest line of a text whose lines are its rows; a longer one is split.
    pub line: usize,
    /// Longest record of a JSON file; a longer one is an error.
    pub record: usize,
    /// Most text of all rows; the rest is not read.
    pub text: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            document: 1 << 20,
            line: 64 << 10,
            record: 16 << 20,
            text: 1 << 30,
        }
    }
}

/// Approximate memory of a row beyond its text, in bytes.
pub(crate) const OVERHEAD: usize = 40;

/// The rows read so far, and remarks on them.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// In the order of the files.
    pub rows: Vec<String>,
    /// The columns they come from, or "paragraphs" or "lines".
    pub columns: Vec<String>,
    /// Remarks for people.
    pub remarks: Vec<String>,
    pub limits: Limits,
    /// How chats become text.
    pub chats: ChatForm,
    taken: usize,
}

impl Rows {
    /// No rows yet; chats take this form.
    pub fn with(chats: ChatForm) -> Self {
        Self {
            chats,
            ..Self::default()
        }
    }

    /// No rows yet, within limits other than the default.
    #[cfg(test)]
    pub fn within(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Adds the value of a text column as a row; `false` if it is neither text nor a chat.
    ///
    /// # Errors
    /// The chat template cannot be read.
    pub fn push_value(&mut self, value: Value) -> Result<bool, CalibError> {
        let row = match row_value(value) {
            Some(RowValue::Text(text)) => text,
            Some(RowValue::Chat(chat)) => self.chats.text(&chat)?,
            None => return Ok(false),
        };
        self.push(row);
        Ok(true)
    }

    /// Adds a row; a long one is split.
    pub fn push(&mut self, row: String) {
        let limit = self.limits.document;
        self.push_within(row, limit);
    }

    /// Adds a row; one longer than `limit` is split.
    pub fn push_within(&mut self, row: String, limit: usize) {
        if row.len() <= limit {
            self.add(row);
            return;
        }
        let mut rest = row.as_str();
        while rest.len() > limit && !self.is_full() {
            let (piece, behind) = rest.split_at(cut(rest, limit));
            self.add(piece.to_owned());
            rest = behind;
        }
        if !rest.is_empty() && !self.is_full() {
            self.add(rest.to_owned());
        }
        self.remark(format!("rows of more than {} cut at white space", size(limit)));
    }

    fn add(&mut self, row: String) {
        self.taken += row.len() + OVERHEAD;
        self.rows.push(row);
        if self.is_full() {
            self.remark(format!("the first {} of it", size(self.limits.text)));
        }
    }

    /// Whether the limit of text is reached.
    pub fn is_full(&self) -> bool {
        self.taken >= self.limits.text
    }

    /// Adds a remark, once.
    pub fn remark(&mut self, remark: String) {
        if !self.remarks.contains(&remark) {
            self.remarks.push(remark);
        }
    }

    /// Notes a column, once.
    pub fn column(&mut self, column: &str) {
        if !self.columns.iter().any(|known| known == column) {
            self.columns.push(column.to_owned());
        }
    }
}

/// Where to split a text longer than `limit`: after the last line end in the second half of its first `limit` bytes, else
/// after the last white space there, else between two characters. Never at the beginning.
pub(crate) fn cut(text: &str, limit: usize) -> usize {
    let end = (0..=limit.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    let end = match end {
        Some(end) if end > 0 => end,
        _ => text.chars().next().map_or(0, char::len_utf8),
    };
    let half = end / 2;
    let head = &text[..end];
    let behind = |found: Option<(usize, char)>| found.map(|(at, c)| at + c.len_utf8()).filter(|at| *at > half);
    let line = behind(head.rfind('\n').map(|at| (at, '\n')));
    let space = || behind(head.char_indices().rev().find(|(_, c)| c.is_whitespace()));
    line.or_else(space).unwrap_or(end)
}

/// A number of bytes, for people.
pub(crate) fn size(bytes: usize) -> String {
    [(30, "GiB"), (20, "MiB"), (10, "KiB")]
        .into_iter()
        .find(|(shift, _)| bytes >> shift > 0 && bytes.trailing_zeros() >= *shift)
        .map_or_else(
            || format!("{bytes} bytes"),
            |(shift, unit)| format!("{} {unit}", bytes >> shift),
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_rows_are_cut_where_they_may_be() {
        let mut rows = Rows::default();
        rows.push_within("one two three".into(), 6);
        assert_eq!(rows.rows, ["one ", "two ", "three"]);
        let mut rows = Rows::default();
        rows.push_within("a b c\nd e f".into(), 8);
        assert_eq!(rows.rows, ["a b c\n", "d e f"]);
        // Without white space between characters, and a character that is longer than the limit stays whole.
        let mut rows = Rows::default();
        rows.push_within("ééé".into(), 3);
        assert_eq!(rows.rows, ["é", "é", "é"]);
        assert_eq!(cut("🦀🦀", 1), 4);
        assert!(rows.remarks[0].contains("3 bytes"));
    }

    #[test]
    fn what_is_beyond_the_limit_is_left() {
        let limits = Limits {
            text: 100,
            document: 10,
            ..Limits::default()
        };
        let mut rows = Rows::within(limits);
        rows.push("x".repeat(1000));
        assert_eq!(rows.rows.len(), 2);
        assert!(rows.is_full() && rows.remarks.iter().any(|r| r == "the first 100 bytes of it"));
    }

    #[test]
    fn sizes() {
        assert_eq!(size(1 << 20), "1 MiB");
        assert_eq!(size(64 << 10), "64 KiB");
        assert_eq!(size(1 << 30), "1 GiB");
        assert_eq!(size(1000), "1000 bytes");
    }
}
