//! JSON documents that are not one record per line: a list of records, or an object that is a record or has such a list.

use std::cell::Cell;
use std::fmt;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

use crate::error::CalibError;
use crate::text::rows::chat::CHATS;
use crate::text::rows::json_records::{Object, Records, describe, is_list, kind, names_text};
use crate::text::rows::unicode::LineEnd;

/// Reads a document, record by record. `line` is what has been read of it already, `number` that line's number.
pub(crate) fn read(
    mut records: Records<'_>,
    line: &[u8],
    end: LineEnd,
    rest: impl BufRead,
    number: usize,
) -> Result<(), CalibError> {
    let ending: &[u8] = if end == LineEnd::Whole { b"\n" } else { b"" };
    let used = Rc::new(Cell::new(0));
    let metered = Metered {
        inner: line.chain(ending).chain(rest),
        used: Rc::clone(&used),
        limit: records.rows.limits.record,
    };
    let (path, mut failure) = (records.path, None);
    let mut reader = serde_json::Deserializer::from_reader(BufReader::with_capacity(4096, metered));
    // One document most often; objects over several lines each may follow each other.
    let result = loop {
        let mut document = Document {
            records: &mut records,
            used: &used,
            failure: &mut failure,
        };
        if let Err(error) = serde::Deserializer::deserialize_any(&mut reader, &mut document) {
            break Err(error);
        }
        if records.rows.is_full() {
            break Ok(());
        }
        match reader.end() {
            Ok(()) => break Ok(()),
            Err(error) if error.is_io() => break Err(error),
            Err(_) => {}
        }
    };
    let record = records.taken + 1;
    match (result, failure) {
        (_, Some(Stop::Failed(error))) => return Err(error),
        (_, Some(Stop::Full)) | (Ok(()), None) => {}
        (Err(_), None) if used.get() > records.rows.limits.record => {
            return Err(records.too_long(format!("record {record}")));
        }
        (Err(error), None) if error.is_io() => return Err(CalibError::reading(path, error.into())),
        (Err(error), None) => {
            let problem = describe(number + error.line().saturating_sub(1), &error);
            return Err(CalibError::corrupt(path, problem));
        }
    }
    records.finish()
}

/// A reader that fails once a record is longer than the limit.
struct Metered<R> {
    inner: R,
    used: Rc<Cell<usize>>,
    limit: usize,
}

impl<R: Read> Read for Metered<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.used.get() > self.limit {
            return Err(io::Error::other("the record is too long"));
        }
        let length = self.inner.read(buffer)?;
        self.used.set(self.used.get() + length);
        Ok(length)
    }
}

/// Why reading stops before the end of the document.
enum Stop {
    Failed(CalibError),
    /// The limit of text is reached.
    Full,
}

/// A whole document: a list of records, or an object that is one or has some.
struct Document<'r, 'a> {
    records: &'r mut Records<'a>,
    used: &'r Cell<usize>,
    failure: &'r mut Option<Stop>,
}

impl Document<'_, '_> {
    fn add<E: serde::de::Error>(&mut self, record: Value) -> Result<(), E> {
        self.used.set(0);
        let index = self.records.taken + 1;
        let place = || format!("record {index}");
        let added = match record {
            Value::Object(object) => self.records.add(object, &place),
            Value::String(text) => {
                self.records.taken += 1;
                self.records.column.get_or_insert_with(|| "of strings".into());
                self.records.rows.push(text);
                Ok(())
            }
            other => {
                let problem = format!("{}: expected an object, found {}", place(), kind(&other));
                Err(CalibError::corrupt(self.records.path, problem))
            }
        };
        let stop = match added {
            Err(error) => Stop::Failed(error),
            Ok(()) if self.records.rows.is_full() => Stop::Full,
            Ok(()) => return Ok(()),
        };
        *self.failure = Some(stop);
        Err(E::custom("stopped"))
    }

    fn add_all<'de, A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while let Some(record) = list.next_element::<Value>()? {
            self.add(record)?;
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for &mut Document<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or a list of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.add_all(list)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut object = Object::new();
        let mut from: Option<String> = None;
        while let Some(key) = map.next_key::<String>()? {
            if from.is_some() {
                // A second list would hold other records, or the same ones again.
                map.next_value::<IgnoredAny>()?;
                self.used.set(0);
            } else if CHATS.contains(&key.as_str()) || names_text(&object, self.records.wanted) {
                object.insert(key, map.next_value()?);
            } else {
                match map.next_value_seed(Member {
                    key: &key,
                    document: &mut *self,
                })? {
                    Some(value) => drop(object.insert(key, value)),
                    None => from = Some(key),
                }
            }
        }
        match from {
            Some(key) => self.records.rows.remark(format!("list {key}")),
            None => self.add(Value::Object(object))?,
        }
        Ok(())
    }
}

/// Reads a value of the outermost object: returned as it is, or consumed as the list of records.
struct Member<'r, 'd, 'a> {
    key: &'r str,
    document: &'r mut Document<'d, 'a>,
}

impl<'de> DeserializeSeed<'de> for Member<'_, '_, '_> {
    type Value = Option<Value>;

    fn deserialize<D: serde::Deserializer<'de>>(self, reader: D) -> Result<Option<Value>, D::Error> {
        reader.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member<'_, '_, '_> {
    type Value = Option<Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Option<Value>, A::Error> {
        let Some(first) = list.next_element::<Value>()? else {
            return Ok(Some(Value::Array(Vec::new())));
        };
        let first = Value::Array(vec![first]);
        let records = is_list(self.key, &first);
        let Value::Array(mut items) = first else {
            return Ok(None);
        };
        if !records {
            while let Some(item) = list.next_element()? {
                items.push(item);
            }
            return Ok(Some(Value::Array(items)));
        }
        items.into_iter().try_for_each(|item| self.document.add(item))?;
        self.document.add_all(list)?;
        Ok(None)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Option<Value>, A::Error> {
        let mut object = Object::new();
        while let Some((key, value)) = map.next_entry()? {
            object.insert(key, value);
        }
        Ok(Some(Value::Object(object)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Option<Value>, E> {
        Ok(Some(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Option<Value>, E> {
        Ok(Some(Value::Null))
    }
}
