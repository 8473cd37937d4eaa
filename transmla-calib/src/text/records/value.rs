//! What a column holds.

use serde::ser::{Serialize, SerializeMap, Serializer};

/// What a column of a record holds.
#[derive(Debug, Clone, PartialEq)]
pub enum RecordValue {
    /// Nothing.
    Null,
    /// A truth value.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Another number.
    Float(f64),
    /// A text.
    Text(String),
    /// Values in order.
    List(Vec<Self>),
    /// Columns of its own.
    Record(Record),
}

impl RecordValue {
    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values of a list, if it is one.
    pub fn as_list(&self) -> Option<&[Self]> {
        match self {
            Self::List(values) => Some(values),
            _ => None,
        }
    }
}

impl Serialize for RecordValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Null => serializer.serialize_unit(),
            Self::Bool(value) => serializer.serialize_bool(*value),
            Self::Int(value) => serializer.serialize_i64(*value),
            Self::Float(value) => serializer.serialize_f64(*value),
            Self::Text(text) => serializer.serialize_str(text),
            Self::List(values) => values.serialize(serializer),
            Self::Record(record) => record.serialize(serializer),
        }
    }
}

/// A record of a dataset: its columns by name, in their order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Record {
    columns: Vec<(String, RecordValue)>,
}

impl Record {
    /// A record of some columns.
    pub fn new(columns: Vec<(String, RecordValue)>) -> Self {
        Self { columns }
    }

    /// The names and values of the columns.
    pub fn columns(&self) -> &[(String, RecordValue)] {
        &self.columns
    }

    /// A column by name, or one inside of a column: `choices.text`.
    pub fn get(&self, path: &str) -> Option<&RecordValue> {
        let find = |name: &str| self.columns.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        if let Some(value) = find(path) {
            return Some(value);
        }
        let (outer, inner) = path.split_once('.')?;
        match find(outer)? {
            RecordValue::Record(record) => record.get(inner),
            _ => None,
        }
    }
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.columns.len()))?;
        for (name, value) in &self.columns {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}
