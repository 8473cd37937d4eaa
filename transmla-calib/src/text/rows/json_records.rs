//! JSON records on their way to rows: which of their fields is the text.

use std::path::Path;

use serde_json::{Map, Value};

use crate::error::CalibError;
use crate::text::rows::chat::{self, CHATS};
use crate::text::rows::collected::{Rows, size};
use crate::text::rows::column::{self, Candidate, Holds};

pub(crate) type Object = Map<String, Value>;

/// Records that are looked at until one of them has a text.
const LOOKED_AT: usize = 1000;

/// The keys under which records are: a list of strings, or a list in an object that stands on one line as a record does.
pub(crate) const LISTS: [&str; 7] = ["data", "rows", "texts", "documents", "examples", "instances", "train"];

/// What the hub's viewer calls its list of columns.
const FEATURES: &str = "features";

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

/// The parser's reason, with the line of the file instead of the line of the parsed piece.
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
