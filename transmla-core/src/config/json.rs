//! Typed access to the keys of a JSON object, with errors that name the key.

use serde_json::{Map, Value};

use crate::CoreError;

pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// A key's value, with `null` read as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A required positive integer.
    pub fn size(&self, key: &str) -> Result<usize, CoreError> {
        self.optional_size(key)?
            .ok_or_else(|| CoreError::config(key, "is required and absent"))
    }

    /// An optional positive integer.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, CoreError> {
        const LARGEST: u64 = 1 << 31;
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (1..=LARGEST).contains(&number) => Ok(Some(number as usize)),
                _ => Err(CoreError::config(key, format!("{value} is not a positive integer"))),
            },
        }
    }

    /// An optional positive number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CoreError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
                _ => Err(CoreError::config(key, format!("{value} is not a positive number"))),
            },
        }
    }

    /// An optional boolean, false if absent.
    pub fn flag(&self, key: &str) -> Result<bool, CoreError> {
        match self.get(key) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(CoreError::config(key, format!("{value} is not true or false"))),
        }
    }

    /// An optional string.
    pub fn text(&self, key: &str) -> Option<&'a str> {
        self.get(key).and_then(Value::as_str)
    }

    /// One token id or a list of them.
    pub fn token_ids(&self, key: &str) -> Vec<u32> {
        let id = |v: &Value| v.as_u64().and_then(|n| u32::try_from(n).ok());
        match self.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => Vec::new(),
        }
    }
}
