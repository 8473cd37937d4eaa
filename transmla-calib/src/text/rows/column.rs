//! Which column of a dataset file is the text.

use std::path::Path;

use crate::error::CalibError;
use crate::text::rows::chat::CHATS;

/// The names of columns that hold text wherever they occur, best first.
const PREFERRED: [&str; 3] = ["text", "sentence", "content"];

/// Whether a column is the text by its name alone.
pub(crate) fn is_named(name: &str, wanted: Option<&str>) -> bool {
    match wanted {
        Some(wanted) => name == wanted,
        None => PREFERRED.contains(&name),
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holds {
    /// A string or nothing in each row.
    Text,
    /// A list of messages in each row.
    Chat,
    /// A list of strings in each row; read as text only if the column is asked for by name.
    Strings,
    /// Anything else.
    Other,
}

/// A column as the file describes it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    /// Its name; for a field inside a column, the names from the outermost in, joined by dots.
    pub name: String,
    /// The type, for the error message.
    pub kind: String,
    pub holds: Holds,
}

/// The index of the text column: the one asked for, else `text`, `sentence` or `content`, else a chat (`messages`,
/// `conversations`), else a field of one of the first three names inside a column, else the only column of strings.
///
/// # Errors
/// [`CalibError::NoTextColumn`] with all columns that were found.
pub(crate) fn choose(path: &Path, candidates: &[Candidate], wanted: Option<&str>) -> Result<usize, CalibError> {
    let fail = || CalibError::NoTextColumn {
        path: path.to_path_buf(),
        wanted: wanted.map(str::to_owned),
        columns: candidates.iter().map(|c| format!("{} ({})", c.name, c.kind)).collect(),
    };
    let find = |fits: &dyn Fn(&Candidate) -> bool| candidates.iter().position(fits);
    if let Some(wanted) = wanted {
        return find(&|c| c.name == wanted && c.holds != Holds::Other).ok_or_else(fail);
    }
    let only = |fits: &dyn Fn(&Candidate) -> bool| {
        let mut fitting = (0..candidates.len()).filter(|&i| candidates[i].holds == Holds::Text && fits(&candidates[i]));
        fitting.next().filter(|_| fitting.next().is_none())
    };
    let inner = |c: &Candidate| c.name.contains('.');
    let text = PREFERRED
        .iter()
        .find_map(|name| find(&|c| c.holds == Holds::Text && c.name == *name));
    let chat = || {
        CHATS
            .iter()
            .find_map(|name| find(&|c| c.holds == Holds::Chat && c.name == *name))
    };
    text.or_else(chat)
        .or_else(|| {
            only(&|c| {
                c.name
                    .rsplit_once('.')
                    .is_some_and(|(_, last)| PREFERRED.contains(&last))
            })
        })
        .or_else(|| only(&|c| !inner(c)))
        .or_else(|| only(&|c| inner(c)).filter(|_| find(&|c| !inner(c) && c.holds == Holds::Text).is_none()))
        .ok_or_else(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(columns: &[(&str, Holds)]) -> Vec<Candidate> {
        let candidate = |&(name, holds): &(&str, Holds)| Candidate {
            name: name.into(),
            kind: format!("{holds:?}").to_lowercase(),
            holds,
        };
        columns.iter().map(candidate).collect()
    }

    #[test]
    fn prefers_the_known_names() {
        use Holds::{Chat, Other, Strings, Text};
        let pick = |columns: &[(&str, Holds)]| choose(Path::new("f"), &candidates(columns), None).ok();
        assert_eq!(pick(&[("content", Text), ("sentence", Text), ("text", Text)]), Some(2));
        assert_eq!(pick(&[("content", Text), ("sentence", Text), ("url", Text)]), Some(1));
        assert_eq!(pick(&[("text", Other), ("content", Text), ("url", Text)]), Some(1));
        assert_eq!(pick(&[("label", Other), ("story", Text)]), Some(1));
        assert_eq!(pick(&[("question", Text), ("answer", Text)]), None);
        assert_eq!(
            pick(&[("prompt", Text), ("prompt_id", Text), ("messages", Chat)]),
            Some(2)
        );
        assert_eq!(pick(&[("conversations", Chat), ("text", Text)]), Some(1));
        assert_eq!(
            pick(&[("meta.url", Text), ("meta.id", Text), ("data.text", Text)]),
            Some(2)
        );
        assert_eq!(pick(&[("story", Text), ("meta.url", Text), ("meta.id", Text)]), Some(0));
        assert_eq!(pick(&[("meta.url", Text), ("n", Other)]), Some(0));
        assert_eq!(pick(&[("q", Text), ("a", Text), ("meta.url", Text)]), None);
        assert_eq!(pick(&[("words", Strings)]), None);
        assert_eq!(pick(&[]), None);
    }

    #[test]
    fn what_is_asked_for_is_taken() {
        use Holds::{Other, Strings, Text};
        let columns = candidates(&[
            ("text", Text),
            ("output", Text),
            ("words", Strings),
            ("n", Other),
            ("a.b", Text),
        ]);
        let pick = |name| choose(Path::new("qa.parquet"), &columns, Some(name));
        assert_eq!(pick("output").ok(), Some(1));
        assert_eq!(pick("words").ok(), Some(2));
        assert_eq!(pick("a.b").ok(), Some(4));
        for name in ["n", "outputs"] {
            let error = pick(name).unwrap_err().to_string();
            assert!(
                error.contains(&format!("no text column {name}")) && error.contains("output (text)"),
                "{error}"
            );
        }
    }

    #[test]
    fn the_error_lists_what_is_there() {
        let columns = candidates(&[("q", Holds::Text), ("a", Holds::Text), ("n", Holds::Other)]);
        let text = choose(Path::new("qa.parquet"), &columns, None).unwrap_err().to_string();
        let expected = ["qa.parquet", "q (text), a (text), n (other)", "column = NAME"];
        assert!(expected.iter().all(|part| text.contains(part)), "{text}");
    }
}
