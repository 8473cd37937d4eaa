//! Turning JSON records into rows: which field is the text, and what it holds.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::CalibError;
use crate::text::rows::chat::{self, CHATS};
use crate::text::rows::collected::{Rows, size};
use crate::text::rows::column::{self, Candidate, Holds};

pub(crate) type Object = Map<String, Value>;

/// Number of records searched for one that has a text.
const LOOKED_AT: usize = 1000;

/// The keys under which a list of strings holds rows, or under which an object on one line holds the list of records.
pub(crate) const LISTS: [&str; 7] = ["data", "rows", "texts", "documents", "examples", "instances", "train"];

/// The key under which the hub's dataset viewer lists the columns.
const FEATURES: &str = "features";

/// Turns records into rows.
pub(crate) struct Records<'a> {
    pub path: &'a Path,
    pub wanted: Option<&'a str>,
    pub rows: &'a mut Rows,
    /// The text column; chosen at the first record that has a text.
    pub column: Option<String>,
    /// The fields of the records before that one.
    seen: Vec<Candidate>,
    /// The number of those records.
    without: usize,
    /// Number of records so far.
    pub taken: usize,
}

impl<'a> Records<'a> {
    pub fn new(path: &'a Path, wanted: Option<&'a str>, rows: &'a mut Rows) -> Self {
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

    /// Adds a record; `place` is where it stands, for errors.
    pub fn add(&mut self, mut object: Object, place: &dyn Fn() -> String) -> Result<(), CalibError> {
        self.taken += 1;
        if self.column.is_none() && !self.find_column(&object)? {
            return Ok(());
        }
        let Some(column) = &self.column else { return Ok(()) };
        let value = take(&mut object, column).unwrap_or(Value::Null);
        let found = kind(&value);
        match self.rows.push_value(value)? {
            true => Ok(()),
            false => {
                let problem = format!("{}: expected text in column {column}, found {found}", place());
                Err(CalibError::corrupt(self.path, problem))
            }
        }
    }

    /// Chooses the text column if this record, or all so far together, determine it.
    fn find_column(&mut self, object: &Object) -> Result<bool, CalibError> {
        let new = candidates(object);
        for candidate in &new {
            match self.seen.iter_mut().find(|seen| seen.name == candidate.name) {
                Some(seen) if seen.kind == "null" => *seen = candidate.clone(),
                Some(_) => {}
                None => self.seen.push(candidate.clone()),
            }
        }
        // This record decides if it can, else all fields seen so far.
        let chosen = column::choose(self.path, &new, self.wanted)
            .map(|index| new[index].name.clone())
            .or_else(|_| column::choose(self.path, &self.seen, self.wanted).map(|index| self.seen[index].name.clone()));
        match chosen {
            Ok(column) => {
                // The records before this one lack the column.
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

    /// The error of a record that is longer than the limit.
    pub fn too_long(&self, place: String) -> CalibError {
        CalibError::TooLong {
            path: self.path.to_path_buf(),
            place,
            limit: size(self.rows.limits.record),
        }
    }

    /// Notes the column that was read; an error if no record had a text.
    pub fn finish(self) -> Result<(), CalibError> {
        match self.column {
            Some(column) => self.rows.column(&column),
            None if self.taken > 0 => return column::choose(self.path, &self.seen, self.wanted).map(|_| ()),
            None => {}
        }
        Ok(())
    }
}

/// The fields of a record, those of nested objects included.
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

/// Whether a value can be the list of records: a list of objects that are not messages, or of strings under a key that says
/// so.
pub(crate) fn is_list(key: &str, value: &Value) -> bool {
    let Value::Array(items) = value else { return false };
    match items.first() {
        Some(Value::Object(_)) => !CHATS.contains(&key) && key != FEATURES,
        Some(Value::String(_)) => LISTS.contains(&key),
        _ => false,
    }
}

/// Whether an object is a record itself: it has a text by name. Any other string may as well precede a list of records.
pub(crate) fn names_text(object: &Object, wanted: Option<&str>) -> bool {
    object
        .iter()
        .any(|(key, value)| value.is_string() && column::is_named(key, wanted))
}

/// Takes a value out of a record, by its key or by a path of keys joined by dots.
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

/// The JSON type of a value.
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

/// The parser's reason with the line number in the file instead of that in the parsed piece. (The parser's error is not kept
/// as a cause: it would name the wrong line.)
pub(crate) fn describe(line: usize, error: &serde_json::Error) -> String {
    let text = error.to_string();
    let reason = text
        .rsplit_once(" at line ")
        .map_or(text.as_str(), |(reason, _)| reason);
    format!("line {line}, column {}: {}", error.column(), shortened(reason))
}

/// Most characters of a reason, which may quote a whole line.
const REASON: usize = 160;

/// Its beginning and its end, if it is long.
fn shortened(reason: &str) -> String {
    let characters: Vec<char> = reason.chars().collect();
    if characters.len() <= REASON {
        return reason.to_owned();
    }
    let (start, end) = (&characters[..REASON / 2], &characters[characters.len() - REASON / 2..]);
    start.iter().chain(&[' ', '…', ' ']).chain(end).collect()
}
