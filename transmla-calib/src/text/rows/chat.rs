//! Text stored as something other than one string: chats and lists of strings.

use serde_json::{Map, Value};

/// The names of columns that hold a chat.
pub(crate) const CHATS: [&str; 4] = ["messages", "conversations", "conversation", "chat"];
/// The keys of a message under which its role stands.
const ROLES: [&str; 3] = ["role", "from", "speaker"];
/// The keys of a message under which its content stands.
const CONTENTS: [&str; 3] = ["content", "value", "text"];

/// The text of a value: a string as it is, null as an empty text, a chat rendered, a list of strings as lines.
pub(crate) fn text_of(value: Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text),
        Value::Null => Some(String::new()),
        Value::Array(items) if items.iter().all(Value::is_string) => Some(joined(&items)),
        Value::Array(items) => render(&items),
        _ => None,
    }
}

/// Whether a value is a chat: a list of messages.
pub(crate) fn is_chat(value: &Value) -> bool {
    matches!(value, Value::Array(items) if !items.is_empty() && items.iter().all(|item| {
        item.as_object().is_some_and(|message| keyed(message, &CONTENTS).is_some())
    }))
}

/// A chat as one document: each message on a line of its own, preceded by its role. The one place where chats become text.
fn render(messages: &[Value]) -> Option<String> {
    let message = |message: &Value| {
        let message = message.as_object()?;
        let content = match keyed(message, &CONTENTS)? {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            // Parts, as in messages with images: those that are not text are left out.
            Value::Array(parts) => joined(parts),
            _ => return None,
        };
        Some(match keyed(message, &ROLES) {
            Some(Value::String(role)) => format!("{role}: {content}"),
            _ => content,
        })
    };
    let lines: Option<Vec<String>> = messages.iter().map(message).collect();
    Some(lines?.join("\n"))
}

fn keyed<'a>(message: &'a Map<String, Value>, keys: &[&str]) -> Option<&'a Value> {
    keys.iter().find_map(|key| message.get(*key))
}

fn joined(parts: &[Value]) -> String {
    let part = |part: &Value| match part {
        Value::String(text) => Some(text.clone()),
        Value::Object(part) => keyed(part, &CONTENTS).and_then(Value::as_str).map(str::to_owned),
        _ => None,
    };
    parts.iter().filter_map(part).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn chats_of_every_spelling() {
        let expected = "user: Hello\nassistant: Good day.";
        for chat in [
            json!([{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}]),
            json!([{"from": "user", "value": "Hello"}, {"from": "assistant", "value": "Good day.", "weight": 1}]),
            json!([{"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image"}]},
                   {"role": "assistant", "content": ["Good day."]}]),
        ] {
            assert!(is_chat(&chat), "{chat}");
            assert_eq!(text_of(chat).unwrap(), expected);
        }
        // A call of a tool has no content.
        let call = json!([{"role": "user", "content": "x"}, {"role": "assistant", "content": null, "tool_calls": []}]);
        assert_eq!(text_of(call).unwrap(), "user: x\nassistant: ");
    }

    #[test]
    fn other_values() {
        assert_eq!(text_of(json!("one")).unwrap(), "one");
        assert_eq!(text_of(json!(null)).unwrap(), "");
        assert_eq!(text_of(json!(["one", "two"])).unwrap(), "one\ntwo");
        for value in [
            json!(5),
            json!({"role": "user"}),
            json!([1, 2]),
            json!([{"role": "user", "content": 3}]),
        ] {
            assert_eq!(text_of(value), None);
        }
        assert!(!is_chat(&json!([])) && !is_chat(&json!([{"name": "x"}])));
    }
}
