//! What settings say of the place that a model comes from, and of code that lies there.

use serde_json::{Map, Value};

/// Keys that say where a model was, or run code that does not come along.
const ORIGIN_KEYS: [&str; 8] = [
    "auto_map",
    "_name_or_path",
    "name_or_path",
    "_commit_hash",
    "tokenizer_file",
    "special_tokens_map_file",
    "cache_dir",
    "custom_generate",
];

/// Removes, at any depth, the keys that say where a model was or that name code of its own.
pub(super) fn forget_origin(settings: &mut Value) {
    match settings {
        Value::Object(map) => forget_origin_in(map),
        Value::Array(list) => list.iter_mut().for_each(forget_origin),
        _ => {}
    }
}

/// As [`forget_origin`].
pub(crate) fn forget_origin_in(map: &mut Map<String, Value>) {
    map.retain(|key, _| !ORIGIN_KEYS.contains(&key.as_str()));
    map.values_mut().for_each(forget_origin);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_removed_at_any_depth() {
        let mut settings = json!({"_name_or_path": "/u", "a": {"auto_map": {}, "b": [{"name_or_path": "/v", "c": 1}]}});
        forget_origin(&mut settings);
        assert_eq!(settings, json!({"a": {"b": [{"c": 1}]}}));
    }
}
