//! Records of parquet and JSON files.

use std::path::Path;

use parquet::file::reader::{FileReader, RowGroupReader, SerializedFileReader};
use parquet::record::Field;

use crate::error::CalibError;
use crate::text::contain::contained;
use crate::text::open::{decompressed, regular};
use crate::text::records::value::{Record, RecordValue};
use crate::text::rows::collected::{Limits, size};
use crate::text::rows::file::Format;
use crate::text::rows::parquet_guard::{Guarded, check_footer, check_pages};
use crate::text::rows::unicode::{LineEnd, Utf8, read_line};

/// Most records of a split; those of published tasks have some tens of thousands.
const MOST_RECORDS: usize = 1_000_000;

/// Adds the records of a file.
pub(crate) fn read(path: &Path, records: &mut Vec<Record>) -> Result<(), CalibError> {
    match Format::of(path) {
        Some(Format::Parquet) => contained(|| parquet(path, records))
            .unwrap_or_else(|panic| Err(CalibError::undecodable(path, panic.to_string(), panic))),
        Some(Format::Json) => json(path, records),
        Some(Format::Plain) | None => Err(CalibError::Unsupported {
            path: path.to_path_buf(),
            found: "records of a file of this kind".into(),
            supported: ".parquet, .jsonl, .ndjson and .json".into(),
        }),
    }
}

fn add(path: &Path, records: &mut Vec<Record>, record: Record) -> Result<(), CalibError> {
    if records.len() >= MOST_RECORDS {
        return Err(CalibError::TooLong {
            path: path.to_path_buf(),
            place: "the split".into(),
            limit: format!("{MOST_RECORDS} records"),
        });
    }
    records.push(record);
    Ok(())
}

fn parquet(path: &Path, records: &mut Vec<Record>) -> Result<(), CalibError> {
    let mut file = regular(path)?;
    check_footer(path, &mut file)?;
    let pages = regular(path)?;
    let reader = SerializedFileReader::new(file)
        .map_err(|e| CalibError::undecodable(path, format!("not a valid parquet file: {e}"), e))?;
    for index in 0..reader.num_row_groups() {
        let problem = |e| CalibError::undecodable(path, format!("row group {index}: {e}"), e);
        let group = Guarded(reader.get_row_group(index).map_err(problem)?);
        for column in group.metadata().columns() {
            check_pages(path, &pages, column)?;
        }
        for row in group.get_row_iter(None).map_err(problem)? {
            let row = row.map_err(problem)?;
            let columns = row
                .get_column_iter()
                .map(|(name, field)| (name.clone(), of_field(field)));
            add(path, records, Record::new(columns.collect()))?;
        }
    }
    Ok(())
}

/// What is neither a number nor composed of numbers and texts is nothing.
fn of_field(field: &Field) -> RecordValue {
    match field {
        Field::Bool(value) => RecordValue::Bool(*value),
        Field::Byte(value) => RecordValue::Int(i64::from(*value)),
        Field::Short(value) => RecordValue::Int(i64::from(*value)),
        Field::Int(value) => RecordValue::Int(i64::from(*value)),
        Field::Long(value) => RecordValue::Int(*value),
        Field::UByte(value) => RecordValue::Int(i64::from(*value)),
        Field::UShort(value) => RecordValue::Int(i64::from(*value)),
        Field::UInt(value) => RecordValue::Int(i64::from(*value)),
        Field::ULong(value) => i64::try_from(*value).map_or(RecordValue::Null, RecordValue::Int),
        Field::Float(value) => RecordValue::Float(f64::from(*value)),
        Field::Double(value) => RecordValue::Float(*value),
        Field::Str(text) => RecordValue::Text(text.clone()),
        Field::Group(row) => {
            let columns = row
                .get_column_iter()
                .map(|(name, field)| (name.clone(), of_field(field)));
            RecordValue::Record(Record::new(columns.collect()))
        }
        Field::ListInternal(list) => RecordValue::List(list.elements().iter().map(of_field).collect()),
        _ => RecordValue::Null,
    }
}

/// One object on each line, or one array of objects.
fn json(path: &Path, records: &mut Vec<Record>) -> Result<(), CalibError> {
    let fail = |e| CalibError::reading(path, e);
    let limit = Limits::default().record;
    let mut reader = Utf8::new(decompressed(path)?, false).map_err(fail)?;
    let mut line = Vec::new();
    for number in 1_usize.. {
        let end = read_line(&mut reader, &mut line, limit).map_err(fail)?;
        if end == LineEnd::Nothing {
            break;
        }
        if end == LineEnd::GoesOn {
            return Err(CalibError::TooLong {
                path: path.to_path_buf(),
                place: format!("line {number}"),
                limit: size(limit),
            });
        }
        let content = line.trim_ascii();
        if content.is_empty() {
            continue;
        }
        let corrupt = |e: serde_json::Error| CalibError::undecodable(path, format!("line {number}: {e}"), e);
        let no_object = || CalibError::corrupt(path, format!("line {number} holds no JSON object"));
        match serde_json::from_slice(content).map_err(corrupt)? {
            serde_json::Value::Array(list) if number == 1 => {
                for value in list {
                    let serde_json::Value::Object(object) = value else {
                        return Err(no_object());
                    };
                    add(path, records, of_object(object))?;
                }
            }
            serde_json::Value::Object(object) => add(path, records, of_object(object))?,
            _ => return Err(no_object()),
        }
    }
    Ok(())
}

fn of_object(object: serde_json::Map<String, serde_json::Value>) -> Record {
    Record::new(object.into_iter().map(|(name, value)| (name, of_json(value))).collect())
}

fn of_json(value: serde_json::Value) -> RecordValue {
    match value {
        serde_json::Value::Null => RecordValue::Null,
        serde_json::Value::Bool(value) => RecordValue::Bool(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(whole) => RecordValue::Int(whole),
            None => number.as_f64().map_or(RecordValue::Null, RecordValue::Float),
        },
        serde_json::Value::String(text) => RecordValue::Text(text),
        serde_json::Value::Array(list) => RecordValue::List(list.into_iter().map(of_json).collect()),
        serde_json::Value::Object(object) => RecordValue::Record(of_object(object)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<Vec<Record>, CalibError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        let mut records = Vec::new();
        read(&path, &mut records).map(|()| records)
    }

    #[test]
    fn json_in_lines_or_as_a_list_is_the_same() {
        let lines = "{\"q\": \"a\", \"choices\": {\"text\": [\"x\", \"y\"], \"n\": 2}}\n\n{\"q\": null, \"share\": 0.5, \"is\": true}\n";
        let list = format!("[{}]", lines.trim().replace("\n\n", ", "));
        let records = read_text("a.jsonl", lines).unwrap();
        assert_eq!(records, read_text("a.json", &list).unwrap());
        let texts = records[0].get("choices.text").and_then(RecordValue::as_list).unwrap();
        assert_eq!(texts[1].as_text(), Some("y"));
        assert_eq!(records[0].get("choices.n"), Some(&RecordValue::Int(2)));
        assert_eq!(records[1].get("q"), Some(&RecordValue::Null));
        assert_eq!(records[1].get("absent"), None);
        let written = serde_json::to_string(&records[1]).unwrap();
        assert!(
            written.contains("\"share\":0.5") && written.contains("\"is\":true"),
            "{written}"
        );
    }

    #[test]
    fn what_is_no_record_is_named() {
        for (name, text, words) in [
            ("a.jsonl", "{\"a\": 1}\n3", "line 2"),
            ("a.jsonl", "{\"a\": ", "line 1"),
            ("a.json", "[1]", "no JSON object"),
            ("a.txt", "a", ".jsonl"),
            ("a.parquet", "PAR1 and not much more", "parquet"),
        ] {
            let error = read_text(name, text).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
