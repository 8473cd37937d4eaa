//! Typed access to the keys of a JSON object, with errors that name the key.

use serde_json::{Map, Value};

use crate::CoreError;

pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// A key's value, with `null` read as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// A required positive integer that counts or measures layers, heads or vectors.
    pub fn size(&self, key: &str) -> Result<usize, CoreError> {
        required(key, self.optional_size(key)?)
    }

    /// An optional one.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, CoreError> {
        // Far beyond any model, and products of three of them, of layers and bytes still fit 64 bits.
        self.count(key, 1 << 20)
    }

    /// A required number of layers. A plan lists the tensors of each, and no model has a hundredth of so many.
    pub fn layers(&self, key: &str) -> Result<usize, CoreError> {
        required(key, self.count(key, 1 << 14)?)
    }

    /// A required positive integer that counts token ids.
    pub fn vocabulary(&self, key: &str) -> Result<usize, CoreError> {
        required(key, self.count(key, 1 << 24)?)
    }

    /// An optional positive integer that counts tokens of a text.
    pub fn tokens(&self, key: &str) -> Result<Option<usize>, CoreError> {
        self.count(key, 1 << 31)
    }

    fn count(&self, key: &str, largest: u64) -> Result<Option<usize>, CoreError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) if (1..=largest).contains(&number) => Ok(Some(number as usize)),
                _ => {
                    let problem = format!("{value} is not an integer from 1 to {largest}");
                    Err(CoreError::config(key, problem))
                }
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

    /// A required string.
    pub fn text(&self, key: &str) -> Result<&'a str, CoreError> {
        let value = required(key, self.get(key))?;
        value
            .as_str()
            .ok_or_else(|| CoreError::config(key, format!("{value} is not a string")))
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

fn required<T>(key: &str, value: Option<T>) -> Result<T, CoreError> {
    value.ok_or_else(|| CoreError::config(key, "is required and absent"))
}
