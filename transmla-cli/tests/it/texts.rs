//! Texts of every kind on the command line.

use std::path::Path;

use crate::support::{Workplace, transmla, write_ids};

/// Twelve documents, each on a line.
fn story() -> String {
    let text = "Once upon a time there was a little dog. He ran and ran. ".repeat(8);
    (0..12).map(|index| format!("{index} {text}\n")).collect()
}

/// Converts with a text, for nothing but its samples; gives what is said about them.
#[track_caller]
fn converts(place: &Workplace, dataset: &str, more: &[&str]) -> String {
    let quick = [
        "--cal-dataset",
        dataset,
        "--refine",
        "0",
        "--ppl-eval-batch-size",
        "0",
        "--force",
    ];
    let ran = transmla(&place.convert(&[&quick[..], more].concat()));
    assert_eq!(ran.code, Some(0), "{ran:?}");
    ran.stderr + &ran.stdout
}

#[test]
fn a_document_on_each_line() {
    let place = Workplace::new();
    let file = place.arg("train.txt");
    std::fs::write(&file, story()).unwrap();
    let said = converts(&place, &file, &["--cal-nsamples", "8"]);
    assert!(
        said.contains("8 x 32 tokens") && said.contains("train.txt, lines"),
        "{said}"
    );
}

#[test]
fn names_with_commas_and_colons_and_columns() {
    let place = Workplace::new();
    let odd = place.arg("a, b:2.txt");
    std::fs::write(&odd, story()).unwrap();
    let table = place.arg("pairs.jsonl");
    let lines = story()
        .lines()
        .map(|line| format!("{{\"question\": \"why\", \"answer\": \"{line}\"}}\n"))
        .collect::<String>();
    std::fs::write(&table, lines).unwrap();
    let said = converts(&place, &format!("\"{odd}\":3,{odd}"), &["--cal-nsamples", "4"]);
    assert!(said.contains("3 x ") && said.contains("a, b:2.txt"), "{said}");
    let error = transmla(&place.convert(&["--force", "--cal-dataset", &table]));
    error.fails(
        1,
        &["pairs.jsonl", "question (string)", "answer (string)", "--text-column"],
    );
    let said = converts(&place, &table, &["--text-column", "answer"]);
    assert!(said.contains("column answer"), "{said}");
    let eval = [
        "eval",
        "--model-path",
        &place.arg("model"),
        "--dataset",
        &table,
        "--seqlen",
        "32",
        "--max-windows",
        "2",
    ];
    transmla(&eval).fails(1, &["--text-column"]);
    transmla(&[&eval[..], &["--text-column", "answer"]].concat()).succeeds();
}

#[test]
fn two_million_tokens_in_a_row() {
    let place = Workplace::new();
    let (file, name) = (place.path("ids.safetensors"), place.arg("ids.safetensors"));
    write_ids(&file, &vec![5; 2_000_000], [1, 2_000_000]);
    let words = ["2000000 tokens", "context of 512", "at most 32768"];
    let whole = "2000000";
    transmla(&place.convert(&["--cal-tokens", &name, "--cal-max-seqlen", whole])).fails(1, &words);
    transmla(&place.convert(&["--eval-tokens", &name, "--eval-seqlen", whole])).fails(1, &words);
    transmla(&place.convert(&["--cal-max-seqlen", "2000000"])).fails(1, &words);
    transmla(&place.convert(&["--eval-seqlen", "2000000"])).fails(1, &words);
    let model = place.arg("model");
    transmla(&["eval", "--model-path", &model, "--tokens", &name]).fails(1, &words);
    transmla(&[
        "eval",
        "--model-path",
        &model,
        "--dataset",
        "stories",
        "--seqlen",
        "2000000",
    ])
    .fails(1, &words);
    let output = place.arg("logits.safetensors");
    transmla(&[
        "logits",
        "--model-path",
        &model,
        "--input-ids",
        &name,
        "--output",
        &output,
    ])
    .fails(1, &words);
    // Fewer of them are as good as ever.
    transmla(&["eval", "--model-path", &model, "--tokens", &name, "--seqlen", "64"]).succeeds();
}

#[test]
fn tokenizers_made_to_harm() {
    let place = Workplace::new();
    let path = place.path("model/tokenizer.json");
    let file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    for (part, value) in [
        (
            "normalizer",
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}),
        ),
        (
            "normalizer",
            serde_json::json!({"type": "Precompiled", "precompiled_charsmap": "////fwAAAAAAAAAA"}),
        ),
        ("pre_tokenizer", serde_json::json!({"type": "FixedLength", "length": 0})),
        (
            "decoder",
            serde_json::json!({"type": "Strip", "content": "e", "start": 0, "stop": 9}),
        ),
    ] {
        let mut file = file.clone();
        file[part] = value;
        std::fs::write(&path, file.to_string()).unwrap();
        for command in ["convert", "generate"] {
            let model = place.arg("model");
            let ran = match command {
                "convert" => transmla(&place.convert(&[])),
                _ => transmla(&[
                    "generate",
                    "--model-path",
                    &model,
                    "--prompt",
                    "one",
                    "--max-new-tokens",
                    "4",
                ]),
            };
            assert_eq!(ran.code, Some(1), "{part} {command}: {ran:?}");
            assert!(
                ran.stderr.contains("tokenizer.json") && !ran.stderr.contains("panicked"),
                "{ran:?}"
            );
        }
    }
}

#[test]
fn a_tokenizer_config_that_asks_for_another_bos() {
    let place = Workplace::new();
    let path = place.path("model/tokenizer.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    file["post_processor"] = serde_json::Value::Null;
    std::fs::write(&path, file.to_string()).unwrap();
    let config = serde_json::json!({"tokenizer_class": "LlamaTokenizer", "add_bos_token": true, "bos_token": "<s>"});
    std::fs::write(place.path("model/tokenizer_config.json"), config.to_string()).unwrap();
    let eval = [
        "eval",
        "--model-path",
        &place.arg("model"),
        "--dataset",
        "stories",
        "--seqlen",
        "32",
        "--max-windows",
        "2",
    ];
    let ran = transmla(&eval);
    assert!(ran.code == Some(0) && ran.stderr.contains("add_bos_token"), "{ran:?}");
}

/// Chats of a file, over and over: enough of them for windows and samples.
fn many_chats(place: &Workplace) -> String {
    let rows = include_str!("../../../transmla-calib/tests/chat_rows/messages.jsonl").repeat(6);
    std::fs::write(place.path("chat.jsonl"), rows).unwrap();
    place.arg("chat.jsonl")
}

/// Gives the model a template of the tests; its tokens in the chats of [`many_chats`], as transformers has them.
fn with_template(place: &Workplace) -> Vec<i64> {
    let template = include_str!("../../../transmla-calib/tests/chat_templates/headers.jinja");
    std::fs::write(place.path("model/chat_template.jinja"), template).unwrap();
    let tokens = r#"{"bos_token": "<s>", "eos_token": "</s>"}"#;
    std::fs::write(place.path("model/tokenizer_config.json"), tokens).unwrap();
    let recorded: serde_json::Value =
        serde_json::from_str(include_str!("../../../transmla-calib/tests/chat_rows/recorded.json")).unwrap();
    serde_json::from_value::<Vec<i64>>(recorded["headers"]["ids"].clone())
        .unwrap()
        .repeat(6)
}

#[test]
fn chats_are_measured_in_the_models_template() {
    let place = Workplace::new();
    let chats = many_chats(&place);
    let eval = |more: &[&str]| {
        let model = place.arg("model");
        let line = [
            "eval",
            "--model-path",
            &model,
            "--seqlen",
            "64",
            "--max-windows",
            "4",
            "--json",
        ];
        transmla(&[&line[..], more].concat()).json()
    };
    let plain = eval(&["--dataset", &chats]);
    let ids = with_template(&place);
    write_ids(&place.path("ids.safetensors"), &ids[..256], [4, 64]);
    let expected = eval(&["--tokens", &place.arg("ids.safetensors")]);
    let both = eval(&["--dataset", &format!("stories,{chats}")]);
    let found = &both["texts"][1];
    assert_eq!(found["mean_nll"], expected["mean_nll"]);
    assert_ne!(found["mean_nll"], plain["mean_nll"]);
    let text = found["text"].as_str().unwrap();
    assert!(
        text.contains("chats in the model's template, column messages"),
        "{text}"
    );
    assert!(
        !both["texts"][0]["text"].as_str().unwrap().contains("template"),
        "{both}"
    );
}

#[test]
fn chats_are_calibrated_on_in_the_models_template() {
    let place = Workplace::new();
    let chats = many_chats(&place);
    let said = converts(&place, &chats, &["--cal-nsamples", "4"]);
    assert!(
        said.contains("chats as plain text, as the model has no template"),
        "{said}"
    );
    with_template(&place);
    let said = converts(&place, &format!("stories:1,{chats}:1"), &["--cal-nsamples", "4"]);
    let parts = ["2 x ", "chats in the model's template, column messages"];
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}

/// Gemma writes nonsense without it.
#[test]
fn windows_of_gemma_begin_with_bos() {
    let place = Workplace::new();
    let gemma = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-core/tests/families/gemma2");
    let model = gemma.to_str().unwrap();
    let file = place.arg("text.txt");
    std::fs::write(&file, story()).unwrap();
    let eval = |text: [&str; 2]| {
        let options = ["--seqlen", "16", "--max-windows", "3", "--json"];
        transmla(&[&["eval", "--model-path", model][..], &text, &options].concat()).json()
    };
    let rows: Vec<String> = story().lines().map(str::to_owned).collect();
    let tokenizer = transmla_calib::TextTokenizer::from_folder(&gemma).unwrap();
    let text = tokenizer.encode(&rows.join("\n\n"), false).unwrap();
    let ids: Vec<i64> = text[..45]
        .chunks(15)
        .flat_map(|window| std::iter::once(&1).chain(window))
        .map(|&id| i64::from(id))
        .collect();
    write_ids(&place.path("ids.safetensors"), &ids, [3, 16]);
    let found = eval(["--dataset", &file]);
    let expected = eval(["--tokens", &place.arg("ids.safetensors")]);
    assert_eq!(found["mean_nll"], expected["mean_nll"]);
    let text = found["text"].as_str().unwrap();
    assert!(text.contains("each window after a BOS token"), "{text}");
}
