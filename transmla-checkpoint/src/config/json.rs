//! Typed access to the keys of a JSON object, with errors that name the key.

use serde_json::{Map, Value};

use super::defaults::Defaults;
use crate::error::CheckpointError;

pub(super) struct Keys<'a>(pub &'a Map<String, Value>);

impl<'a> Keys<'a> {
    /// A key's value, with `null` read as absent.
    pub fn get(&self, key: &str) -> Option<&'a Value> {
        self.0.get(key).filter(|v| !v.is_null())
    }

    /// Whether a key is there as `null`, which for some keys says something else than its absence.
    pub fn is_null(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(Value::is_null)
    }

    /// A required positive integer that counts or measures layers, heads or vectors.
    pub fn size(&self, key: &str) -> Result<usize, CheckpointError> {
        required(key, self.optional_size(key)?)
    }

    /// The same of a key that a transformers class has a value for, which the error tells.
    pub fn size_of(&self, key: &str, defaults: &Defaults) -> Result<usize, CheckpointError> {
        let usual = defaults.size(key);
        self.optional_size(key)?.ok_or_else(|| absent_size(key, usual))
    }

    /// An optional one.
    pub fn optional_size(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        // Far beyond any model, and products of three of them, of layers and bytes still fit 64 bits.
        self.count(key, 1, 1 << 20)
    }

    /// An optional number of layers, 0 included.
    pub fn layers(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.count(key, 0, 1 << 20)
    }

    /// A required number of layers. A plan lists the tensors of each, and no model has a hundredth of so many.
    pub fn depth_of(&self, key: &str, defaults: &Defaults) -> Result<usize, CheckpointError> {
        let usual = defaults.size(key);
        self.count(key, 1, 1 << 14)?.ok_or_else(|| absent_size(key, usual))
    }

    /// A required positive integer that counts token ids.
    pub fn vocabulary(&self, key: &str, defaults: &Defaults) -> Result<usize, CheckpointError> {
        let usual = defaults.size(key);
        self.count(key, 1, 1 << 24)?.ok_or_else(|| absent_size(key, usual))
    }

    /// An optional positive integer that counts tokens of a text.
    pub fn tokens(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        self.count(key, 1, 1 << 31)
    }

    fn count(&self, key: &str, smallest: u64, largest: u64) -> Result<Option<usize>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match integer(value) {
                Some(number) if (smallest..=largest).contains(&number) => Ok(Some(number as usize)),
                _ => {
                    let problem = format!("{value} is not an integer from {smallest} to {largest}");
                    Err(CheckpointError::config(key, problem))
                }
            },
        }
    }

    /// An optional positive number.
    pub fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) if number > 0.0 && number.is_finite() => Ok(Some(number)),
                _ => Err(CheckpointError::config(
                    key,
                    format!("{value} is not a positive number"),
                )),
            },
        }
    }

    /// An optional boolean, false if absent.
    pub fn flag(&self, key: &str) -> Result<bool, CheckpointError> {
        self.flag_or(key, false)
    }

    /// An optional boolean.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool, CheckpointError> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(value) => Err(CheckpointError::config(key, format!("{value} is not true or false"))),
        }
    }

    /// A required string.
    pub fn text(&self, key: &str) -> Result<&'a str, CheckpointError> {
        let value = required(key, self.get(key))?;
        value
            .as_str()
            .ok_or_else(|| CheckpointError::config(key, format!("{value} is not a string")))
    }

    /// One token id or a list of them; the default if the key is absent, none if it is null.
    pub fn token_ids(&self, key: &str, default: Option<u32>) -> Vec<u32> {
        let id = |v: &Value| integer(v).and_then(|n| u32::try_from(n).ok());
        match self.0.get(key) {
            Some(Value::Array(list)) => list.iter().filter_map(id).collect(),
            Some(value) => id(value).into_iter().collect(),
            None => default.into_iter().collect(),
        }
    }
}

/// A number without a fraction that is not negative; some writers have integers as `32.0`.
fn integer(value: &Value) -> Option<u64> {
    let whole = |number: &f64| number.fract() == 0.0 && (0.0..9e15).contains(number);
    value
        .as_u64()
        .or_else(|| value.as_f64().filter(whole).map(|number| number as u64))
}

fn absent_size(key: &str, usual: Option<usize>) -> CheckpointError {
    let usual = usual.map_or_else(String::new, |usual| {
        format!("; the family's class in transformers has {usual}, which is that of one published model")
    });
    CheckpointError::config(
        key,
        format!("is required and absent{usual}: write the size of the tensors into config.json"),
    )
}

fn required<T>(key: &str, value: Option<T>) -> Result<T, CheckpointError> {
    value.ok_or_else(|| CheckpointError::config(key, "is required and absent"))
}
