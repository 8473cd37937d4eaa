//! Chat templates: the same text as transformers, and a clear word where there is none.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use transmla_calib::{CalibError, ChatMessage, ChatTemplate};

fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/chat_templates")
}

/// 2024-07-04, when the renderings were recorded.
fn recorded_day() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_720_096_200)
}

fn tokens() -> Vec<(String, String)> {
    [("bos_token", "<s>"), ("eos_token", "</s>")]
        .map(|(name, token)| (name.to_owned(), token.to_owned()))
        .to_vec()
}

fn parse(source: &str) -> ChatTemplate {
    ChatTemplate::parse("template", source, tokens()).unwrap()
}

#[test]
fn every_recorded_chat_is_rendered_as_by_transformers() {
    let recorded: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(templates().join("renderings.json")).unwrap()).unwrap();
    assert_eq!(recorded.len(), 128);
    for case in &recorded {
        let name = case["template"].as_str().unwrap();
        let source = std::fs::read_to_string(templates().join(format!("{name}.jinja"))).unwrap();
        let template = parse(&source).at(recorded_day());
        let message = |message: &Value| ChatMessage {
            role: message["role"].as_str().unwrap().into(),
            content: message["content"].as_str().unwrap().into(),
        };
        let messages: Vec<ChatMessage> = case["messages"].as_array().unwrap().iter().map(message).collect();
        let prompt = case["add_generation_prompt"].as_bool().unwrap();
        let label = format!("{name}, {}, {prompt}", case["chat"]);
        match (template.render(&messages, prompt), case["text"].as_str()) {
            (Ok(text), Some(expected)) => assert_eq!(text, expected, "{label}"),
            (Err(CalibError::ChatTemplate { problem, .. }), None) => {
                assert_eq!(problem, case["error"].as_str().unwrap(), "{label}");
            }
            (found, expected) => panic!("{label}: {found:?}, expected {expected:?}"),
        }
    }
}

#[test]
fn without_a_time_templates_have_a_date_of_their_own() {
    let source = "{% if strftime_now is defined %}{{ strftime_now('%Y') }}{% else %}never{% endif %}";
    assert_eq!(parse(source).render(&[], false).unwrap(), "never");
    assert_eq!(parse(source).at(recorded_day()).render(&[], false).unwrap(), "2024");
}

/// Names and contents of files.
type Files<'a> = &'a [(&'a str, &'a str)];

/// A folder with files of these contents.
fn folder(files: Files<'_>) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, contents) in files {
        std::fs::write(folder.path().join(name), contents).unwrap();
    }
    folder
}

fn rendered(files: Files<'_>) -> Result<Option<String>, CalibError> {
    let folder = folder(files);
    let template = ChatTemplate::from_folder(folder.path())?;
    template
        .map(|template| template.render(&[ChatMessage::user("x")], false))
        .transpose()
}

#[test]
fn a_folder_has_its_template_in_one_of_three_places() {
    let config = |template: Value| {
        json!({"bos_token": {"content": "<b>", "lstrip": false}, "eos_token": "<e>", "chat_template": template})
            .to_string()
    };
    let string = config(json!("string {{ bos_token }}{{ eos_token }}"));
    let named = config(json!([{"name": "rag", "template": "rag"}, {"name": "default", "template": "named"}]));
    let jinja = ("chat_template.jinja", "own file {{ bos_token }}");
    let cases: [(Files<'_>, Option<&str>); 5] = [
        (&[], None),
        (&[("tokenizer_config.json", "{}")], None),
        (&[("tokenizer_config.json", &string)], Some("string <b><e>")),
        (&[("tokenizer_config.json", &named)], Some("named")),
        (&[("tokenizer_config.json", &string), jinja], Some("own file <b>")),
    ];
    for (files, expected) in cases {
        assert_eq!(rendered(files).unwrap().as_deref(), expected, "{files:?}");
    }
    let older = ("chat_template.json", r#"{"chat_template": "older"}"#);
    assert_eq!(rendered(&[older]).unwrap().as_deref(), Some("older"));
}

#[test]
fn what_is_no_template_is_an_error_that_says_why() {
    let two = json!({"chat_template": [{"name": "a", "template": ""}, {"name": "b", "template": ""}]}).to_string();
    let alone = json!({"chat_template": [{"name": "rag", "template": "rag"}]}).to_string();
    let empty = json!({"chat_template": []}).to_string();
    let cases: [(&str, &str, &str); 7] = [
        ("tokenizer_config.json", &alone, "found: rag"),
        ("tokenizer_config.json", &empty, "found: none"),
        ("chat_template.jinja", "line\n{% if %}", "line 2"),
        (
            "tokenizer_config.json",
            &two,
            "no template is named default; found: a, b",
        ),
        (
            "tokenizer_config.json",
            r#"{"chat_template": 7}"#,
            "neither a string nor a list",
        ),
        ("tokenizer_config.json", "{", "EOF"),
        ("chat_template.jinja", "{{ nothing() }}", "nothing is unknown"),
    ];
    for (name, contents, expected) in cases {
        let error = rendered(&[(name, contents)]).unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(name), "{error}");
    }
}

#[test]
fn hostile_templates_end() {
    let bombs = [
        "{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}",
        "{{ 'x' * 9999999999 }}",
        "{% macro f() %}{{ f() }}{{ f() }}{% endmacro %}{{ f() }}",
        "{% set ns = namespace(t='xxxxxxxxxxxxxxxx') %}{% for i in range(60) %}{% set ns.t = ns.t + ns.t %}{% endfor %}{{ ns.t }}",
    ];
    for bomb in bombs {
        let error = parse(bomb).render(&[ChatMessage::user("x")], true).unwrap_err();
        assert!(matches!(error, CalibError::ChatTemplate { .. }), "{bomb}: {error}");
    }
}
