//! JSON as Python writes it, which is what chat templates were written for.

use minijinja::value::ValueKind;
use minijinja::{Error, ErrorKind, Value};

/// Most levels of nesting.
const DEEPEST: usize = 64;

/// A value as Python's `json.dumps` with `ensure_ascii=False`: a blank behind commas and colons, or lines with an indent.
pub fn python_json(value: &Value, indent: Option<usize>) -> Result<String, Error> {
    let mut text = String::new();
    write(&mut text, value, indent, 0)?;
    Ok(text)
}

fn write(text: &mut String, value: &Value, indent: Option<usize>, depth: usize) -> Result<(), Error> {
    let invalid = |problem: String| Error::new(ErrorKind::InvalidOperation, problem);
    if depth > DEEPEST {
        return Err(invalid(format!("tojson: more than {DEEPEST} levels")));
    }
    match value.kind() {
        ValueKind::None | ValueKind::Undefined => text.push_str("null"),
        ValueKind::Bool => text.push_str(if value.is_true() { "true" } else { "false" }),
        ValueKind::Number => text.push_str(&value.to_string()),
        ValueKind::String => {
            let string = value.as_str().unwrap_or_default();
            text.push_str(&serde_json::to_string(string).map_err(|error| invalid(error.to_string()))?);
        }
        ValueKind::Seq | ValueKind::Iterable => {
            let items: Vec<Value> = value.try_iter()?.collect();
            list(text, ('[', ']'), items.len(), indent, depth, &mut |text, index| {
                write(text, &items[index], indent, depth + 1)
            })?;
        }
        ValueKind::Map => {
            let keys: Vec<Value> = value.try_iter()?.collect();
            list(text, ('{', '}'), keys.len(), indent, depth, &mut |text, index| {
                let key = &keys[index];
                write(text, &Value::from(key.to_string()), None, depth + 1)?;
                text.push_str(": ");
                write(text, &value.get_item(key)?, indent, depth + 1)
            })?;
        }
        other => return Err(invalid(format!("tojson: {other} is no JSON"))),
    }
    Ok(())
}

fn list(
    text: &mut String,
    (open, close): (char, char),
    length: usize,
    indent: Option<usize>,
    depth: usize,
    item: &mut dyn FnMut(&mut String, usize) -> Result<(), Error>,
) -> Result<(), Error> {
    let line = |text: &mut String, depth: usize| {
        if let Some(width) = indent {
            text.push('\n');
            text.extend(std::iter::repeat_n(' ', width * depth));
        }
    };
    text.push(open);
    for index in 0..length {
        if index > 0 {
            text.push_str(if indent.is_some() { "," } else { ", " });
        }
        line(text, depth + 1);
        item(text, index)?;
    }
    if length > 0 {
        line(text, depth);
    }
    text.push(close);
    Ok(())
}
