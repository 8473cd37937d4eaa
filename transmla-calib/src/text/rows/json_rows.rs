//! JSON files: one record per line, a list of records, or an object that has such a list.

use std::path::Path;

use crate::error::CalibError;
use crate::text::open::decompressed;
use crate::text::rows::collected::Rows;
use crate::text::rows::json_document;
use crate::text::rows::json_records::{LISTS, Object, Records, describe, is_list, names_text};
use crate::text::rows::unicode::{LineEnd, Utf8, read_line};

/// Reads one object per line, one array of objects or strings, or an object with such an array. Blank lines are skipped;
/// a text that is null or absent is an empty row.
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
            return json_document::read(records, &line, end, reader, number);
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
                return json_document::read(records, &line, end, reader, number);
            }
            Ok(object) => records.add(object, &|| format!("line {number}"))?,
            // An object that continues on the next line.
            Err(e) if first && e.is_eof() => return json_document::read(records, &line, end, reader, number),
            Err(e) => return Err(corrupt(&e)),
        }
    }
    records.finish()
}

/// Whether an object on one line is not a record but holds the list of records.
fn holds_a_list(object: &Object, wanted: Option<&str>) -> bool {
    !names_text(object, wanted)
        && object
            .iter()
            .any(|(key, value)| LISTS.contains(&key.as_str()) && is_list(key, value))
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
        assert!(problem(text).contains("column = NAME"));
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
        let long = problem(format!("\"{}\"\n\"b\"\n", "words ".repeat(1000)).as_bytes());
        assert!(
            long.contains("line 1") && long.contains("expected") && long.len() < 400,
            "{long}"
        );
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
