//! Methods of Python's strings and lists that chat templates may call beside those of `minijinja_contrib::pycompat`.

use minijinja::value::{ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Calls a method of a value that the engine does not know itself.
pub fn python_method(state: &mut State<'_, '_>, value: &Value, method: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match (value.kind(), value.as_str()) {
        (ValueKind::String, Some(text)) => of_text(state, text, method, args)?,
        (ValueKind::Seq, _) if method == "index" => Some(index_in(value, args)?),
        _ => None,
    };
    match found {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, method, args),
    }
}

fn of_text(state: &State<'_, '_>, text: &str, method: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let result = match method {
        "center" | "ljust" | "rjust" | "zfill" => Value::from(padded(state, text, method, args)?),
        "index" | "rindex" => {
            let (what,): (&str,) = from_args(args)?;
            let byte = if method == "index" {
                text.find(what)
            } else {
                text.rfind(what)
            };
            let byte = byte.ok_or_else(|| invalid("substring not found"))?;
            Value::from(text[..byte].chars().count())
        }
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(args)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(args)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" | "rpartition" => {
            let (mark,): (&str,) = from_args(args)?;
            if mark.is_empty() {
                return Err(invalid("empty separator"));
            }
            let parts = match (method, text.split_once(mark), text.rsplit_once(mark)) {
                ("partition", Some((before, after)), _) => [before, mark, after],
                ("partition", ..) => [text, "", ""],
                (_, _, Some((before, after))) => [before, mark, after],
                _ => ["", "", text],
            };
            parts.into_iter().collect()
        }
        "swapcase" => {
            let () = from_args(args)?;
            let swapped = text.chars().flat_map(|letter| match letter.is_uppercase() {
                true => letter.to_lowercase().collect::<Vec<_>>(),
                false => letter.to_uppercase().collect(),
            });
            Value::from(swapped.collect::<String>())
        }
        _ => return Ok(None),
    };
    Ok(Some(result))
}

/// A text of at least a width in characters. What is made is paid for before it is made.
fn padded(state: &State<'_, '_>, text: &str, method: &str, args: &[Value]) -> Result<String, Error> {
    let (width, fill): (i64, Option<&str>) = from_args(args)?;
    let fill = match (method, fill) {
        ("zfill", None) => '0',
        ("zfill", Some(_)) => return Err(Error::from(ErrorKind::TooManyArguments)),
        (_, fill) => {
            let mut letters = fill.unwrap_or(" ").chars();
            match (letters.next(), letters.next()) {
                (Some(letter), None) => letter,
                _ => return Err(invalid("the fill character must be exactly one character long")),
            }
        }
    };
    let length = text.chars().count();
    let width = usize::try_from(width).unwrap_or(0);
    let missing = width.saturating_sub(length);
    state.consume_fuel(missing as u64 / 16)?;
    let left = match method {
        "ljust" => 0,
        // Where it is not even, Python puts one more to the left of texts in odd widths.
        "center" => missing / 2 + (missing & width & 1),
        _ => missing,
    };
    let run = |count: usize| std::iter::repeat_n(fill, count);
    let (sign, rest) = match text.strip_prefix(['+', '-']) {
        Some(rest) if method == "zfill" => text.split_at(text.len() - rest.len()),
        _ => ("", text),
    };
    let mut padded = String::from(sign);
    padded.extend(run(left));
    padded.push_str(rest);
    padded.extend(run(missing - left));
    Ok(padded)
}

fn index_in(list: &Value, args: &[Value]) -> Result<Value, Error> {
    let (what,): (&Value,) = from_args(args)?;
    for (index, item) in list.try_iter()?.enumerate() {
        if item == *what {
            return Ok(Value::from(index));
        }
    }
    Err(invalid("it is not in the list"))
}

fn invalid(problem: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, problem)
}

#[cfg(test)]
mod tests {
    use minijinja::Environment;

    use super::*;

    fn rendered(expression: &str) -> Result<String, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(100_000));
        environment.set_unknown_method_callback(python_method);
        environment.render_str(&format!("{{{{ {expression} }}}}"), ())
    }

    /// As CPython 3.11 gives them.
    #[test]
    fn methods_give_what_python_gives() {
        for (expression, expected) in [
            ("'ab'.center(5, '*')", "**ab*"),
            ("'abc'.center(6, '*')", "*abc**"),
            ("'abc'.center(2)", "abc"),
            ("'é'.ljust(3) ~ '|'", "é  |"),
            ("'a'.rjust(3, '-')", "--a"),
            ("'-7'.zfill(4)", "-007"),
            ("'banana'.index('na')", "2"),
            ("'banana'.rindex('na')", "4"),
            ("[3, 5, 3].index(5)", "1"),
            ("'<a>'.removeprefix('<').removesuffix('>')", "a"),
            ("'a=b=c'.partition('=')|join('/')", "a/=/b=c"),
            ("'a=b=c'.rpartition('=')|join('/')", "a=b/=/c"),
            ("'abc'.rpartition('=')|join('/')", "//abc"),
            ("'aB'.swapcase()", "Ab"),
            ("'a b'.split()|length", "2"),
        ] {
            assert_eq!(rendered(expression).unwrap(), expected, "{expression}");
        }
        for wrong in [
            "'a'.index('b')",
            "[1].index(2)",
            "'a'.center(9, 'xy')",
            "'a'.center(99999999999)",
            "'a'.nothing()",
        ] {
            assert!(rendered(wrong).is_err(), "{wrong}");
        }
    }
}
