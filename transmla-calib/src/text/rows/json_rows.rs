//! JSON: a record on each line, a list of records, or an object that has such a list.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::CalibError;
use crate::text::open::decompressed;
use crate::text::rows::chat::{self, CHATS};
use crate::text::rows::collected::{Rows, size};
use crate::text::rows::column::{self, Candidate, Holds};
use crate::text::rows::unicode::{LineEnd, Utf8, read_line};

pub(crate) type Object = Map<String, Value>;

/// Records that are looked at until one of them has a text.
const LOOKED_AT: usize = 1000;

/// The keys under which records are: a list of strings, or a list in an object that stands on one line as a record does.
const LISTS: [&str; 7] = ["data", "rows", "texts", "documents", "examples", "instances", "train"];

/// What the hub's viewer calls its list of columns.
const FEATURES: &str = "features";

/// Reads one object per line, one array of objects or strings, or an object with such an array; blank lines are skipped,
/// null and an absent text are empty rows.
pub(crate) fn read(path: &Path, wanted: Option<&str>, rows: &mut Rows) -> Result<(), CalibError> {
    let fail = |e| CalibError::reading(path, e);
    let mut reader = Utf8::new(decompressed(path)?, false).map_err(fail)?;
    let limit = rows.limits.record;
    if let Some(remark) = reader.encoding().remark() {
        rows.remark(remark.to_owned());
    }
    let mut records = Records::new(path, wanted, rows);
    let mut line = Vec::new();
    for number in 1_usize.. {
        let end = read_line(&mut reader, &mut line, limit).map_err(fail)?;
        if end == LineEnd::Nothing || records.rows.is_full() {
            break;
        }
        let content = line.trim_ascii();
        let first = records.taken == 0;
        if first && (content.starts_with(b"[") || end == LineEnd::GoesOn) {
            return records.read_document(&line, end, reader, number);
        }
        if end == LineEnd::GoesOn {
            return Err(records.too_long(format!("line {number}")));
        }
        if content.is_empty() {
            continue;
        }
        let corrupt = |e: &serde_json::Error| CalibError::corrupt(path, describe(number, e));
        match serde_json::from_slice::<Object>(content) {
            Ok(object) if first && holds_a_list(&object, wanted) => {
                return records.read_document(&line, end, reader, number);
            }
            Ok(object) => records.add(object, &|| format!("line {number}"))?,
            // An object that goes on in the next line.
            Err(e) if first && e.is_eof() => return records.read_document(&line, end, reader, number),
            Err(e) => return Err(corrupt(&e)),
        }
    }
    records.finish()
}

/// The parser's reason, with the line of the file instead of the line of the parsed piece.
pub(crate) fn describe(line: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    format!("line {line}, column {}: {reason}", error.column())
}

/// Whether an object on one line is no record, but has the list of them.
fn holds_a_list(object: &Object, wanted: Option<&str>) -> bool {
    !names_text(object, wanted)
        && object
            .iter()
            .any(|(key, value)| LISTS.contains(&key.as_str()) && is_list(key, value))
}

/// Whether a value can be the list of records: of objects that are no messages, or of strings under a key that says so.
pub(crate) fn is_list(key: &str, value: &Value) -> bool {
    let Value::Array(items) = value else { return false };
    match items.first() {
        Some(Value::Object(_)) => !CHATS.contains(&key) && key != FEATURES,
        Some(Value::String(_)) => LISTS.contains(&key),
        _ => false,
    }
}

/// Whether an object is a record as it stands: by the name of a text in it, for any string may stand before a list of records.
pub(crate) fn names_text(object: &Object, wanted: Option<&str>) -> bool {
    object
        .iter()
        .any(|(key, value)| value.is_string() && column::is_named(key, wanted))
}

/// What a record's keys hold; objects in it are opened.
fn candidates(object: &Object) -> Vec<Candidate> {
    let mut found = Vec::new();
    list_candidates(object, "", &mut found);
    found
}

fn list_candidates(object: &Object, before: &str, found: &mut Vec<Candidate>) {
    for (key, value) in object {
        let name = format!("{before}{key}");
        let (kind, holds) = match value {
            Value::Null => ("null", Holds::Text),
            Value::Bool(_) => ("boolean", Holds::Other),
            Value::Number(_) => ("number", Holds::Other),
            Value::String(_) => ("string", Holds::Text),
            Value::Array(_) if chat::is_chat(value) => ("list of messages", Holds::Chat),
            Value::Array(items) if !items.is_empty() && items.iter().all(Value::is_string) => {
                ("list of strings", Holds::Strings)
            }
            Value::Array(_) => ("list", Holds::Other),
            Value::Object(inner) => {
                list_candidates(inner, &format!("{name}."), found);
                continue;
            }
        };
        found.push(Candidate {
            name,
            kind: kind.into(),
            holds,
        });
    }
}

/// Records on their way to rows.
pub(crate) struct Records<'a> {
    pub path: &'a Path,
    pub wanted: Option<&'a str>,
    pub rows: &'a mut Rows,
    /// Chosen at the first record that has a text.
    pub column: Option<String>,
    /// What the records before that have.
    seen: Vec<Candidate>,
    /// How many there are of them.
    without: usize,
    pub taken: usize,
}

impl<'a> Records<'a> {
    fn new(path: &'a Path, wanted: Option<&'a str>, rows: &'a mut Rows) -> Self {
        Self {
            path,
            wanted,
            rows,
            column: None,
            seen: Vec::new(),
            without: 0,
            taken: 0,
        }
    }

    pub fn add(&mut self, mut object: Object, place: &dyn Fn() -> String) -> Result<(), CalibError> {
        self.taken += 1;
        if self.column.is_none() && !self.find_column(&object)? {
            return Ok(());
        }
        let Some(column) = &self.column else { return Ok(()) };
        let value = take(&mut object, column).unwrap_or(Value::Null);
        let found = kind(&value);
        match chat::text_of(value) {
            Some(text) => self.rows.push(text),
            None => {
                let problem = format!("{}: expected text in column {column}, found {found}", place());
                return Err(CalibError::corrupt(self.path, problem));
            }
        }
        Ok(())
    }

    /// Chooses the column if this record or what came before it tells.
    fn find_column(&mut self, object: &Object) -> Result<bool, CalibError> {
        let new = candidates(object);
        for candidate in &new {
            match self.seen.iter_mut().find(|seen| seen.name == candidate.name) {
                Some(seen) if seen.kind == "null" => *seen = candidate.clone(),
                Some(_) => {}
                None => self.seen.push(candidate.clone()),
            }
        }
        // What this record has decides, as far as it does; else all that were seen.
        let chosen = column::choose(self.path, &new, self.wanted)
            .map(|index| new[index].name.clone())
            .or_else(|_| column::choose(self.path, &self.seen, self.wanted).map(|index| self.seen[index].name.clone()));
        match chosen {
            Ok(column) => {
                // Those before this one have none of it.
                (0..self.without).for_each(|_| self.rows.push(String::new()));
                self.column = Some(column);
                Ok(true)
            }
            Err(error) if self.without >= LOOKED_AT || self.seen.len() > LOOKED_AT => Err(error),
            Err(_) => {
                self.without += 1;
                Ok(false)
            }
        }
    }

    pub fn too_long(&self, place: String) -> CalibError {
        CalibError::TooLong {
            path: self.path.to_path_buf(),
            place,
            limit: size(self.rows.limits.record),
        }
    }

    pub fn finish(self) -> Result<(), CalibError> {
        match self.column {
            Some(column) => self.rows.column(&column),
            None if self.taken > 0 => return column::choose(self.path, &self.seen, self.wanted).map(|_| ()),
            None => {}
        }
        Ok(())
    }
}

/// Takes a value out of a record, by its name or by the names from the outermost object in.
fn take(object: &mut Object, column: &str) -> Option<Value> {
    if let Some(value) = object.get_mut(column) {
        return Some(value.take());
    }
    let dots = column.match_indices('.').map(|(at, _)| at);
    for at in dots {
        if let Some(Value::Object(inner)) = object.get_mut(&column[..at]) {
            return take(inner, &column[at + 1..]);
        }
    }
    None
}

pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::text::rows::collected::Limits;

    fn read_as(name: &str, bytes: &[u8], wanted: Option<&str>, limits: Limits) -> Result<Rows, CalibError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let mut rows = Rows::within(limits);
        read(&path, wanted, &mut rows).map(|()| rows)
    }

    fn rows_of(text: &str) -> Vec<String> {
        read_as("a.jsonl", text.as_bytes(), None, Limits::default())
            .unwrap()
            .rows
    }

    fn problem(bytes: &[u8]) -> String {
        read_as("a.jsonl", bytes, None, Limits::default())
            .unwrap_err()
            .to_string()
    }

    fn zip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn every_layout_gives_the_same_rows() {
        for text in [
            r#"{"text": "one", "url": "u"}

{"url": "v", "text": "two"}"#,
            r#"[{"text": "one"}, {"text": "two"}]"#,
            "[\n  {\"story\": \"one\", \"n\": 1},\n  {\"story\": \"two\", \"n\": 2}\n]",
            r#"["one", "two"]"#,
            r#"{"data": [{"text": "one"}, {"text": "two"}]}"#,
            "{\n \"version\": 1, \"splits\": [\"a\"],\n \"rows\": [\n  {\"text\": \"one\"},\n  {\"text\": \"two\"}\n ],\n \"more\": [{}]\n}",
            r#"{"data": ["one", "two"]}"#,
            "{\n  \"text\": \"one\",\n  \"spans\": [{\"a\": 1}]\n}\n{\n  \"text\": \"two\"\n}\n",
            r#"{"data": {"text": "one", "id": "x"}}
{"data": {"text": "two", "id": "y"}}"#,
            "{\"text\": \"one\"}\r\n{\"text\": \"two\"}\r\n",
        ] {
            assert_eq!(rows_of(text), ["one", "two"], "{text}");
        }
    }

    #[test]
    fn gzip_in_several_members() {
        let members = [zip(b"{\"text\": \"one\"}\n"), zip(b"{\"text\": \"two\"}\n")].concat();
        assert_eq!(
            read_as("a.jsonl.gz", &members, None, Limits::default()).unwrap().rows,
            ["one", "two"]
        );
        let mut cut = zip(b"{\"text\": \"a long enough line\"}\n");
        cut.truncate(cut.len() - 12);
        for bytes in [&cut[..], b"no gzip at all"] {
            let error = read_as("a.jsonl.gz", bytes, None, Limits::default()).unwrap_err();
            assert!(matches!(error, CalibError::Corrupt { .. }), "{error}");
        }
    }

    #[test]
    fn records_without_text_are_empty_rows() {
        assert_eq!(
            rows_of("{\"id\": 1}\n{\"text\": null}\n{\"id\": 3, \"text\": \"three\"}\n{\"id\": 4}"),
            ["", "", "three", ""]
        );
        assert!(problem(b"{\"id\": 1}\n{\"id\": 2}\n").contains("found id (number)"));
        let many = (0..3000).map(|id| format!("{{\"id\": {id}}}\n")).collect::<String>();
        assert!(problem(many.as_bytes()).contains("no text column"));
    }

    #[test]
    fn chats_are_documents() {
        let chat = r#"{"prompt": "p", "id": "i", "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Ho"}]}"#;
        assert_eq!(rows_of(chat), ["user: Hi\nassistant: Ho"]);
        let chat = r#"[{"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Ho"}]}]"#;
        assert_eq!(rows_of(chat), ["human: Hi\ngpt: Ho"]);
        let pretty = "{\n \"messages\": [\n  {\"role\": \"user\", \"content\": \"Hi\"}\n ]\n}";
        assert_eq!(rows_of(pretty), ["user: Hi"]);
    }

    #[test]
    fn the_column_asked_for() {
        let text = br#"{"instruction": "do", "output": "done", "meta": {"note": "n"}}"#;
        let column = |name| read_as("a.jsonl", text, Some(name), Limits::default());
        assert_eq!(column("output").unwrap().rows, ["done"]);
        assert_eq!(column("meta.note").unwrap().rows, ["n"]);
        let error = column("ouptut").unwrap_err().to_string();
        assert!(
            error.contains("no text column ouptut") && error.contains("instruction (string)"),
            "{error}"
        );
        assert!(problem(text).contains("--text-column"));
        // A list of objects beside it makes it no other thing.
        let text = br#"{"question": "why", "answer": "so", "sources": [{"title": "t"}], "data": [{"text": "x"}]}"#;
        assert_eq!(
            read_as("a.jsonl", text, Some("answer"), Limits::default())
                .unwrap()
                .rows,
            ["so"]
        );
        let text = br#"{"question": "why", "answer": "so", "sources": [{"title": "t"}]}"#;
        assert!(problem(text).contains("answer (string), "), "{}", problem(text));
    }

    #[test]
    fn bad_json_is_told_with_its_line() {
        assert!(problem(b"{\"text\": \"a\"}\n{\"text\": \n").contains("line 2, column"));
        let number = problem(b"{\"text\": \"a\"}\n{\"text\": 5}\n");
        assert!(
            number.contains("line 2: expected text in column text, found number"),
            "{number}"
        );
        assert!(problem(b"{\"text\": \"\xff\"}").contains("line 1"));
        assert!(
            problem(b"\n[{\"text\": \"a\"},\n {]").contains("line 3"),
            "{}",
            problem(b"\n[{\"text\": \"a\"},\n {]")
        );
        assert!(problem(b"[{\"text\": \"a\"}, {\"text\": 1}]").contains("record 2"));
        assert!(problem(b"[{\"text\": \"a\"}, 7]").contains("record 2: expected an object, found number"));
        assert!(problem(b"{\"q\": \"a\", \"a\": \"b\"}").contains("q (string)"));
        assert!(problem(b"\"just a string\"").contains("line 1"));
        assert!(problem(b"{\"text\": \"a\"").contains("EOF"));
    }

    #[test]
    fn records_have_a_limit() {
        let limits = Limits {
            record: 10_000,
            ..Limits::default()
        };
        let long = "x".repeat(30_000);
        for (text, place) in [
            (format!("{{\"text\": \"a\"}}\n{{\"text\": \"{long}\"}}"), "line 2"),
            (format!("{{\"text\": \"{long}\"}}"), "record 1"),
            (format!("[{{\"text\": \"a\"}}, {{\"text\": \"{long}\"}}]"), "record 2"),
            (
                format!("{{\"data\": [{{\"text\": \"a\"}}, {{\"text\": \"{long}\"}}]}}"),
                "record 2",
            ),
        ] {
            let error = read_as("a.json", text.as_bytes(), None, limits).unwrap_err();
            assert!(matches!(error, CalibError::TooLong { .. }), "{error}");
            let error = error.to_string();
            assert!(
                error.contains(place) && error.contains("10000 bytes") && error.contains("a.json"),
                "{error}"
            );
        }
        // The document may be as long as it likes.
        let many = vec![r#"{"text": "a few words to read"}"#; 2000].join(", ");
        for text in [
            format!("[{many}]"),
            format!("{{\"data\": [{many}]}}"),
            many.replace(", ", "\n"),
        ] {
            assert_eq!(
                read_as("a.json", text.as_bytes(), None, limits).unwrap().rows.len(),
                2000
            );
            let few = Limits { text: 5_000, ..limits };
            let found = read_as("a.json", text.as_bytes(), None, few).unwrap();
            assert!(found.rows.len() < 200 && found.is_full(), "{}", found.rows.len());
        }
    }

    #[test]
    fn utf_16_and_a_byte_order_mark() {
        let text = "{\"text\": \"naïve 🦀\"}\n{\"text\": \"two\"}\n";
        let utf_16: Vec<u8> = ["\u{feff}", text]
            .concat()
            .encode_utf16()
            .flat_map(u16::to_le_bytes)
            .collect();
        let found = read_as("a.jsonl", &utf_16, None, Limits::default()).unwrap();
        assert_eq!(
            (found.rows.join(" "), found.remarks),
            ("naïve 🦀 two".into(), vec!["read as UTF-16".to_owned()])
        );
        assert_eq!(rows_of(&["\u{feff}", text].concat()), ["naïve 🦀", "two"]);
    }
}
