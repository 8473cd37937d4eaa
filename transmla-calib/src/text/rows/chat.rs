//! Text stored as something other than one string: chats and lists of strings.

use serde_json::{Map, Value};

use crate::text::tokens::chat_template::ChatMessage;

/// The names of columns that hold a chat.
pub(crate) const CHATS: [&str; 4] = ["messages", "conversations", "conversation", "chat"];
/// The keys of a message under which its role stands.
const ROLES: [&str; 3] = ["role", "from", "speaker"];
/// The keys of a message under which its content stands.
const CONTENTS: [&str; 3] = ["content", "value", "text"];

/// What the names of speakers in the style of ShareGPT (`from`, `value`) are called in chat templates.
const SPEAKERS: [(&str, &str); 9] = [
    ("human", "user"),
    ("prompter", "user"),
    ("gpt", "assistant"),
    ("chatgpt", "assistant"),
    ("bing", "assistant"),
    ("bard", "assistant"),
    ("bot", "assistant"),
    ("model", "assistant"),
    ("function_call", "assistant"),
];

/// What a value of a text column is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RowValue {
    /// A string as it is, null as an empty text, a list of strings as lines.
    Text(String),
    /// The messages of a chat.
    Chat(Vec<Turn>),
}

/// One message of a chat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Turn {
    /// Who speaks, as the file has it.
    role: Option<String>,
    content: String,
}

/// Reads a value of a text column; nothing if it is neither text nor a chat.
pub(crate) fn row_value(value: Value) -> Option<RowValue> {
    match value {
        Value::String(text) => Some(RowValue::Text(text)),
        Value::Null => Some(RowValue::Text(String::new())),
        Value::Array(items) if items.iter().all(Value::is_string) => Some(RowValue::Text(joined(&items))),
        Value::Array(items) => items.iter().map(turn).collect::<Option<_>>().map(RowValue::Chat),
        _ => None,
    }
}

fn turn(message: &Value) -> Option<Turn> {
    let message = message.as_object()?;
    let content = match keyed(message, &CONTENTS)? {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        // Parts, as in messages with images: those that are not text are left out.
        Value::Array(parts) => joined(parts),
        _ => return None,
    };
    let role = keyed(message, &ROLES).and_then(Value::as_str).map(str::to_owned);
    Some(Turn { role, content })
}

/// A chat without a template as one document: each message on a line of its own, preceded by its role.
pub(crate) fn plain(chat: &[Turn]) -> String {
    let line = |turn: &Turn| match &turn.role {
        Some(role) => format!("{role}: {}", turn.content),
        None => turn.content.clone(),
    };
    chat.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// A chat as templates take it; nothing if a message does not say whose it is.
pub(crate) fn messages(chat: &[Turn]) -> Option<Vec<ChatMessage>> {
    let message = |turn: &Turn| {
        let role = turn.role.as_deref()?;
        let known = SPEAKERS.iter().find(|(name, _)| role.eq_ignore_ascii_case(name));
        Some(ChatMessage {
            role: known.map_or(role, |(_, role)| role).to_owned(),
            content: turn.content.clone(),
        })
    };
    chat.iter().map(message).collect()
}

/// Whether a value is a chat: a list of messages.
pub(crate) fn is_chat(value: &Value) -> bool {
    matches!(value, Value::Array(items) if !items.is_empty() && items.iter().all(|item| {
        item.as_object().is_some_and(|message| keyed(message, &CONTENTS).is_some())
    }))
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

    fn text_of(value: Value) -> Option<String> {
        row_value(value).map(|value| match value {
            RowValue::Text(text) => text,
            RowValue::Chat(chat) => plain(&chat),
        })
    }

    #[test]
    fn speakers_have_the_names_that_templates_know() {
        let chat = json!([{"from": "system", "value": "s"}, {"from": "human", "value": "Hello"},
            {"from": "gpt", "value": "Good day."}, {"role": "tool", "content": "7"}]);
        let Some(RowValue::Chat(chat)) = row_value(chat) else {
            panic!("a chat")
        };
        let expected = [
            ChatMessage::system("s"),
            ChatMessage::user("Hello"),
            ChatMessage::assistant("Good day."),
            ChatMessage {
                role: "tool".into(),
                content: "7".into(),
            },
        ];
        assert_eq!(messages(&chat).unwrap(), expected);
        assert!(plain(&chat).starts_with("system: s\nhuman: Hello\ngpt: Good"));
        let Some(RowValue::Chat(nobody)) = row_value(json!([{"content": "Hello"}])) else {
            panic!("a chat")
        };
        assert_eq!(messages(&nobody), None);
    }

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
