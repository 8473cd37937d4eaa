//! Text files: JSON lines, JSON arrays and plain paragraphs, gzipped or not.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use serde_json::{Map, Value};

use crate::CalibError;
use crate::column::{self, Candidate, FileRows};

type Object = Map<String, Value>;

/// What some editors put before the text.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Reads one object per line, or one array of objects; blank lines are skipped, null is an empty row.
pub(crate) fn read_json(path: &Path) -> Result<FileRows, CalibError> {
    let mut reader = open(path)?;
    let mut rows = JsonRows {
        path,
        column: None,
        rows: Vec::new(),
    };
    let mut line = Vec::new();
    for number in 1_usize.. {
        line.clear();
        let length = reader.read_until(b'\n', &mut line);
        if length.map_err(|e| CalibError::reading(path, e))? == 0 {
            break;
        }
        let content = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&line).trim_ascii();
        if rows.rows.is_empty() && content.starts_with(b"[") {
            let mut whole = content.to_vec();
            whole.push(b'\n');
            reader
                .read_to_end(&mut whole)
                .map_err(|e| CalibError::reading(path, e))?;
            let objects: Vec<Object> = serde_json::from_slice(&whole)
                .map_err(|e| CalibError::corrupt(path, describe(number + e.line().saturating_sub(1), &e)))?;
            for (index, object) in objects.into_iter().enumerate() {
                rows.add(object, &format!("object {}", index + 1))?;
            }
            break;
        }
        if !content.is_empty() {
            let object =
                serde_json::from_slice(content).map_err(|e| CalibError::corrupt(path, describe(number, &e)))?;
            rows.add(object, &format!("line {number}"))?;
        }
    }
    Ok(FileRows {
        rows: rows.rows,
        column: rows.column.unwrap_or_default(),
    })
}

/// Reads paragraphs: runs of lines that are not blank.
pub(crate) fn read_paragraphs(path: &Path) -> Result<FileRows, CalibError> {
    let mut bytes = Vec::new();
    open(path)?
        .read_to_end(&mut bytes)
        .map_err(|e| CalibError::reading(path, e))?;
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&bytes);
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let line = 1 + bytes[..e.valid_up_to()].iter().filter(|&&b| b == b'\n').count();
        CalibError::corrupt(path, format!("line {line}: {e}"))
    })?;
    let mut rows = Vec::new();
    let mut paragraph: Vec<&str> = Vec::new();
    for line in text.lines().chain([""]) {
        if !line.trim().is_empty() {
            paragraph.push(line);
        } else if !paragraph.is_empty() {
            rows.push(paragraph.join("\n"));
            paragraph.clear();
        }
    }
    Ok(FileRows {
        rows,
        column: "paragraphs".into(),
    })
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, CalibError> {
    let file = File::open(path).map_err(|e| CalibError::io("read", path, e))?;
    let zipped = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("gz"));
    Ok(if zipped {
        Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))
    } else {
        Box::new(BufReader::new(file))
    })
}

/// The parser's reason, with the line of the file instead of the line of the parsed piece.
fn describe(line: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    format!("line {line}, column {}: {reason}", error.column())
}

struct JsonRows<'a> {
    path: &'a Path,
    /// Chosen at the first object.
    column: Option<String>,
    rows: Vec<String>,
}

impl JsonRows<'_> {
    fn add(&mut self, mut object: Object, place: &str) -> Result<(), CalibError> {
        let column = match &self.column {
            Some(column) => column,
            None => self.column.insert(text_column(self.path, &object)?),
        };
        match object.get_mut(column).map(Value::take) {
            Some(Value::String(row)) => self.rows.push(row),
            Some(Value::Null) => self.rows.push(String::new()),
            found => {
                let found = found.as_ref().map_or("nothing", kind);
                let problem = format!("{place}: expected a string in column {column}, found {found}");
                return Err(CalibError::corrupt(self.path, problem));
            }
        }
        Ok(())
    }
}

fn text_column(path: &Path, object: &Object) -> Result<String, CalibError> {
    let candidates: Vec<Candidate> = object
        .iter()
        .map(|(name, value)| Candidate {
            name: name.clone(),
            kind: kind(value).to_owned(),
            is_text: matches!(value, Value::String(_) | Value::Null),
        })
        .collect();
    column::choose(path, &candidates).map(|index| candidates[index].name.clone())
}

fn kind(value: &Value) -> &'static str {
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

    fn with_file<T>(name: &str, bytes: &[u8], read: impl Fn(&Path) -> T) -> T {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        read(&path)
    }

    fn json(bytes: &[u8]) -> Result<FileRows, CalibError> {
        with_file("a.jsonl", bytes, read_json)
    }

    fn zip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn reads_lines_arrays_and_gzip() {
        let lines = b"{\"text\": \"one\", \"url\": \"u\"}\n\n{\"url\": \"v\", \"text\": null}\r\n{\"text\": \"three\"}";
        let expected = ["one", "", "three"];
        let found = json(lines).unwrap();
        assert_eq!(
            (found.rows.as_slice(), found.column.as_str()),
            (expected.map(String::from).as_slice(), "text")
        );
        assert_eq!(with_file("a.json.gz", &zip(lines), read_json).unwrap().rows, expected);
        // Several gzip members one after the other, as parallel compressors write them.
        let members = [zip(b"{\"text\": \"one\"}\n"), zip(b"{\"text\": \"two\"}\n")].concat();
        assert_eq!(
            with_file("a.jsonl.gz", &members, read_json).unwrap().rows,
            ["one", "two"]
        );
        let array = b"\xef\xbb\xbf[\n  {\"story\": \"one\", \"n\": 1},\n  {\"story\": \"two\", \"n\": 2}\n]";
        assert_eq!(json(array).unwrap().rows, ["one", "two"]);
    }

    #[test]
    fn bad_json_is_told_with_its_line() {
        let problem = |bytes: &[u8]| json(bytes).err().unwrap().to_string();
        assert!(problem(b"{\"text\": \"a\"}\n{\"text\": \n").contains("line 2, column"));
        assert!(
            problem(b"{\"text\": \"a\"}\n{\"text\": 5}\n")
                .contains("line 2: expected a string in column text, found number")
        );
        assert!(
            problem(b"{\"text\": \"a\"}\n{\"body\": \"b\"}\n")
                .contains("line 2: expected a string in column text, found nothing")
        );
        assert!(problem(b"{\"text\": \"\xff\"}").contains("line 1"));
        assert!(problem(b"\n[{\"text\": \"a\"},\n {]").contains("line 3"));
        assert!(problem(b"[{\"text\": \"a\"}, {\"text\": 1}]").contains("object 2"));
        assert!(problem(b"{\"q\": \"a\", \"a\": \"b\"}").contains("q (string)"));
        assert!(problem(b"\"just a string\"").contains("line 1"));
        let mut cut = zip(b"{\"text\": \"a long enough line\"}\n");
        cut.truncate(cut.len() - 12);
        let error = with_file("a.jsonl.gz", &cut, read_json).err().unwrap();
        assert!(matches!(error, CalibError::Corrupt { .. }), "{error}");
        let error = with_file("a.jsonl.gz", b"no gzip at all", read_json).err().unwrap();
        assert!(matches!(error, CalibError::Corrupt { .. }), "{error}");
    }

    #[test]
    fn paragraphs_are_rows() {
        let read = |bytes: &[u8]| with_file("a.txt", bytes, read_paragraphs);
        let found = read(b"\n\nOne\r\ngoes on.\r\n\r\n \t\nTwo.\n\n\n").unwrap();
        assert_eq!(found.rows, ["One\ngoes on.", "Two."]);
        assert!(read(b"").unwrap().rows.is_empty());
        let error = read(b"fine\nnot \xff fine").err().unwrap().to_string();
        assert!(error.contains("line 2"), "{error}");
    }
}
