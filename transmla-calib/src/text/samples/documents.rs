//! Documents that samples and windows are made of.

use crate::text::datasets::text_rows::TextRows;
use crate::text::tokens::pieces::Joining;

/// Rows of text, each a document, and how they become one text of tokens.
///
/// Plain rows are joined by an empty line, and the tokenizer puts its special tokens (usually a BOS) around the whole. Rows
/// in a chat template have theirs from the template, and follow each other with nothing between, as a model has seen them.
#[derive(Debug, Clone, Copy)]
pub struct Documents<'a> {
    rows: &'a [String],
    templated: bool,
}

impl<'a> Documents<'a> {
    /// Chats that a template has rendered.
    pub fn templated(rows: &'a [String]) -> Self {
        Self { rows, templated: true }
    }

    /// The rows.
    pub(crate) fn rows(&self) -> &'a [String] {
        self.rows
    }

    /// Whether a template has rendered them.
    pub(crate) fn is_templated(&self) -> bool {
        self.templated
    }

    /// How they become one text.
    pub(crate) fn joining(&self) -> Joining {
        match self.templated {
            true => Joining::TEMPLATED,
            false => Joining::PLAIN,
        }
    }
}

impl<'a> From<&'a [String]> for Documents<'a> {
    fn from(rows: &'a [String]) -> Self {
        Self { rows, templated: false }
    }
}

impl<'a> From<&'a Vec<String>> for Documents<'a> {
    fn from(rows: &'a Vec<String>) -> Self {
        Self::from(rows.as_slice())
    }
}

impl<'a, const N: usize> From<&'a [String; N]> for Documents<'a> {
    fn from(rows: &'a [String; N]) -> Self {
        Self::from(rows.as_slice())
    }
}

impl<'a> From<&'a TextRows> for Documents<'a> {
    fn from(text: &'a TextRows) -> Self {
        Self {
            rows: &text.rows,
            templated: text.templated,
        }
    }
}
