//! Datasets of chats: in the model's template the ids that transformers gives, without one the plain form.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use transmla_calib::{
    CalibError, DatasetSource, ReadOptions, SampleSpec, Split, TextRows, evaluation_windows, load_with, sample,
};
use transmla_checkpoint::hub::HubOptions;

use crate::TOKENIZER;

/// The id of `<s>`, which the tokenizer puts before plain text.
const BOS: i64 = 1;

const FILES: [&str; 3] = ["messages.jsonl", "messages.parquet", "conversations.jsonl"];

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

/// What transformers gives for the chats of the files, by template.
fn recorded(template: &str) -> (Vec<String>, Vec<i64>) {
    let text = std::fs::read_to_string(tests().join("chat_rows/recorded.json")).unwrap();
    let recorded: Value = serde_json::from_str(&text).unwrap();
    let of = |key: &str| recorded[template][key].clone();
    (
        serde_json::from_value(of("rows")).unwrap(),
        serde_json::from_value(of("ids")).unwrap(),
    )
}

/// A model's folder with a template.
fn model(source: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("chat_template.jinja"), source).unwrap();
    let tokens = json!({"bos_token": "<s>", "eos_token": "</s>"}).to_string();
    std::fs::write(folder.path().join("tokenizer_config.json"), tokens).unwrap();
    folder
}

fn named(template: &str) -> tempfile::TempDir {
    model(&std::fs::read_to_string(tests().join(format!("chat_templates/{template}.jinja"))).unwrap())
}

fn read(file: &Path, model: Option<&Path>) -> Result<TextRows, CalibError> {
    let options = ReadOptions {
        column: None,
        chat_model: model,
    };
    let source = DatasetSource::Path(file.to_path_buf());
    load_with(&source, Split::Test, &options, &HubOptions::default())
}

/// One long window has the ids; short ones are cut from it.
fn assert_windows(text: &TextRows, expected: &[i64], label: &str) {
    for length in [expected.len(), 32] {
        let windows = evaluation_windows(text, &TOKENIZER, length, None).unwrap();
        let kept = expected.len() / length * length;
        assert_eq!(windows.ids(), &expected[..kept], "{label}, {length}");
    }
    assert!(evaluation_windows(text, &TOKENIZER, expected.len() + 1, None).is_err());
}

#[test]
fn chats_in_the_models_template_have_the_ids_of_transformers() {
    for template in ["chatml", "headers"] {
        let (rows, ids) = recorded(template);
        let model = named(template);
        for file in FILES {
            let text = read(&tests().join("chat_rows").join(file), Some(model.path())).unwrap();
            let label = format!("{template}, {file}");
            assert!(text.templated && text.rows == rows, "{label}: {:?}", text.rows);
            assert!(text.origin.contains("chats in the model's template, column"), "{label}");
            assert_windows(&text, &ids, &label);
        }
    }
    // Where the template writes a BOS, there is one before each chat and no other; where it writes none, there is none.
    let count = |template| recorded(template).1.iter().filter(|id| **id == BOS).count();
    assert_eq!((count("headers"), count("chatml")), (3, 0));
}

#[test]
fn without_a_template_chats_are_plain_documents() {
    let empty = tempfile::tempdir().unwrap();
    let (rows, ids) = recorded("plain");
    for model in [None, Some(empty.path())] {
        for file in &FILES[..2] {
            let text = read(&tests().join("chat_rows").join(file), model).unwrap();
            assert!(!text.templated && text.rows == rows, "{:?}", text.rows);
            assert_eq!(
                text.origin.contains("the model has no template"),
                model.is_some(),
                "{}",
                text.origin
            );
            assert_windows(&text, &ids, file);
        }
    }
    assert_eq!((ids[0], ids.iter().filter(|id| **id == BOS).count()), (BOS, 1));
}

#[test]
fn samples_of_chats_begin_where_a_chat_begins() {
    let (rows, _) = recorded("headers");
    let model = named("headers");
    let text = read(&tests().join("chat_rows/messages.parquet"), Some(model.path())).unwrap();
    let starts: Vec<Vec<i64>> = rows
        .iter()
        .map(|row| {
            TOKENIZER.encode(row, false).unwrap()[..24]
                .iter()
                .map(|id| i64::from(*id))
                .collect()
        })
        .collect();
    for seed in 0..8 {
        let spec = SampleSpec {
            samples: 3,
            sequence: 24,
            seed,
        };
        let sampled = sample(&text, &TOKENIZER, &spec).unwrap().tokens;
        for at in 0..sampled.batch() {
            assert!(starts.iter().any(|start| start == sampled.row(at)), "{seed}");
        }
    }
}

#[test]
fn chats_that_the_template_refuses_are_left_out_and_told() {
    let source = "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system here') }}\
                  {% endif %}{{ message.content }}{% endfor %}";
    let model = model(source);
    let text = read(&tests().join("chat_rows/messages.jsonl"), Some(model.path())).unwrap();
    assert_eq!(text.rows.len(), 3);
    assert!(
        text.rows[1].is_empty() && text.rows[0].starts_with("Tell a story.Once"),
        "{:?}",
        text.rows
    );
    assert!(
        text.origin.contains("1 left out that it refuses") && text.origin.contains("no system here"),
        "{}",
        text.origin
    );
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("chats.jsonl");
    for chat in [
        json!([{"role": "system", "content": "a"}]),
        json!([{"content": "nobody said this"}]),
    ] {
        std::fs::write(&file, json!({"messages": chat}).to_string()).unwrap();
        let error = read(&file, Some(model.path())).unwrap_err();
        assert!(matches!(error, CalibError::ChatTemplate { .. }), "{error}");
    }
}

#[test]
fn a_damaged_template_matters_to_chats_alone() {
    let model = model("{% if %}");
    let error = read(&tests().join("chat_rows/messages.jsonl"), Some(model.path())).unwrap_err();
    assert!(matches!(error, CalibError::ChatTemplate { .. }), "{error}");
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("a.txt"), "One day.\n\nTwo days.").unwrap();
    let text = read(&place.path().join("a.txt"), Some(model.path())).unwrap();
    assert!(!text.templated && text.rows.len() == 2);
}
