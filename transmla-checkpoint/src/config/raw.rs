//! The keys of a JSON file as it stands.

use std::path::PathBuf;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::CheckpointError;

/// The keys of a config.json (or another JSON object of a model folder) as they stand.
///
/// Values are found by JSON pointers (RFC 6901), such as `/rope_scaling/factor` or `/architectures/0`. Serialises as the object
/// itself.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct RawConfig(Map<String, Value>);

impl RawConfig {
    /// Parses a JSON object.
    ///
    /// # Errors
    /// [`CheckpointError::Json`], with the path `config.json`, if the text is no JSON object.
    pub fn parse(text: &[u8]) -> Result<Self, CheckpointError> {
        Self::from_slice(text).map_err(|error| CheckpointError::Json {
            path: PathBuf::from("config.json"),
            problem: error.to_string(),
        })
    }

    pub(super) fn from_slice(text: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(text).map(Self)
    }

    pub(crate) fn keys(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Whether there is a value, and it is not null.
    pub fn is_set(&self, pointer: &str) -> bool {
        self.find(pointer).is_some_and(|value| !value.is_null())
    }

    /// A string.
    pub fn text(&self, pointer: &str) -> Option<&str> {
        self.find(pointer)?.as_str()
    }

    /// An integer that is not negative.
    pub fn integer(&self, pointer: &str) -> Option<u64> {
        self.find(pointer)?.as_u64()
    }

    /// Number of elements of a list.
    pub fn length(&self, pointer: &str) -> Option<usize> {
        self.find(pointer)?.as_array().map(Vec::len)
    }

    /// A value as JSON text.
    pub fn json(&self, pointer: &str) -> Option<String> {
        self.find(pointer).map(Value::to_string)
    }

    /// The whole object as JSON text with line breaks, as config.json is written.
    pub fn to_pretty_json(&self) -> String {
        // With an alternate flag a value is written as `serde_json::to_string_pretty` writes it.
        format!("{:#}", Value::Object(self.0.clone()))
    }

    fn find(&self, pointer: &str) -> Option<&Value> {
        let path = pointer.strip_prefix('/')?;
        let (key, rest) = match path.find('/') {
            Some(end) => path.split_at(end),
            None => (path, ""),
        };
        let key = key.replace("~1", "/").replace("~0", "~");
        self.0.get(&key)?.pointer(rest)
    }
}

impl From<Map<String, Value>> for RawConfig {
    fn from(keys: Map<String, Value>) -> Self {
        Self(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_by_pointer() {
        let text = br#"{"a": {"b": [1, "x", null]}, "c/d": 2, "n": null}"#;
        let raw = RawConfig::parse(text).unwrap();
        assert_eq!(raw.integer("/a/b/0"), Some(1));
        assert_eq!(raw.text("/a/b/1"), Some("x"));
        assert_eq!(raw.length("/a/b"), Some(3));
        assert_eq!(raw.integer("/c~1d"), Some(2));
        assert_eq!(raw.json("/a/b").as_deref(), Some("[1,\"x\",null]"));
        for absent in ["/a/b/2", "/a/b/3", "/n", "/x", "a", ""] {
            assert!(!raw.is_set(absent), "{absent}");
        }
        let pretty = raw.to_pretty_json();
        assert_eq!(pretty, serde_json::to_string_pretty(&raw).unwrap());
        assert_eq!(RawConfig::parse(pretty.as_bytes()).unwrap(), raw);
        assert!(RawConfig::parse(b"[]").is_err());
    }
}
