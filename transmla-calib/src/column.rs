//! Which column of a dataset file is the text.

use std::path::Path;

use crate::CalibError;

/// The columns that are text wherever they occur, best first.
const PREFERRED: [&str; 3] = ["text", "sentence", "content"];

/// The rows of one file.
pub(crate) struct FileRows {
    /// The rows, in the order of the file.
    pub rows: Vec<String>,
    /// The column they come from, or what they are.
    pub column: String,
}

/// A column as the file describes it.
pub(crate) struct Candidate {
    pub name: String,
    /// The type, for the error message.
    pub kind: String,
    pub is_text: bool,
}

/// The index of the text column: `text`, else `sentence`, else `content`, else the only column of strings.
///
/// # Errors
/// [`CalibError::NoTextColumn`] with all columns found.
pub(crate) fn choose(path: &Path, candidates: &[Candidate]) -> Result<usize, CalibError> {
    let named = |name: &str| candidates.iter().position(|c| c.is_text && c.name == name);
    let only = || {
        let mut texts = (0..candidates.len()).filter(|&i| candidates[i].is_text);
        texts.next().filter(|_| texts.next().is_none())
    };
    PREFERRED
        .iter()
        .find_map(|name| named(name))
        .or_else(only)
        .ok_or_else(|| CalibError::NoTextColumn {
            path: path.to_path_buf(),
            columns: candidates.iter().map(|c| format!("{} ({})", c.name, c.kind)).collect(),
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(columns: &[(&str, bool)]) -> Vec<Candidate> {
        let candidate = |&(name, is_text): &(&str, bool)| Candidate {
            name: name.into(),
            kind: if is_text { "string" } else { "number" }.into(),
            is_text,
        };
        columns.iter().map(candidate).collect()
    }

    #[test]
    fn prefers_the_known_names() {
        let pick = |columns: &[(&str, bool)]| choose(Path::new("f"), &candidates(columns)).ok();
        assert_eq!(pick(&[("content", true), ("sentence", true), ("text", true)]), Some(2));
        assert_eq!(pick(&[("content", true), ("sentence", true), ("url", true)]), Some(1));
        assert_eq!(pick(&[("text", false), ("content", true), ("url", true)]), Some(1));
        assert_eq!(pick(&[("label", false), ("story", true)]), Some(1));
        assert_eq!(pick(&[("question", true), ("answer", true)]), None);
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn the_error_lists_what_is_there() {
        let error = choose(
            Path::new("qa.parquet"),
            &candidates(&[("question", true), ("label", false)]),
        );
        assert!(error.is_ok());
        let error = choose(
            Path::new("qa.parquet"),
            &candidates(&[("q", true), ("a", true), ("n", false)]),
        );
        let text = error.unwrap_err().to_string();
        assert!(
            text.contains("qa.parquet") && text.contains("q (string), a (string), n (number)"),
            "{text}"
        );
    }
}
