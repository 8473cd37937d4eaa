//! Tokenizer files as people have them, damaged ones, and ones made to harm.

use std::path::Path;

use serde_json::{Value, json};
use transmla_calib::{CalibError, TextTokenizer};

use crate::models;

const TEXT: &str = "Once upon a time, \n\nLily  said: é";

/// What transformers 5.24 gives for the text with the tokenizer of stories260K, without its BOS.
const IDS: [u32; 15] = [403, 407, 261, 378, 432, 410, 13, 13, 438, 310, 410, 336, 467, 410, 485];

fn file() -> Value {
    serde_json::from_slice(&std::fs::read(models().join("stories260k/tokenizer.json")).unwrap()).unwrap()
}

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut file = file();
    change(&mut file);
    file
}

fn in_folder<T>(files: &[(&str, &Value)], look: impl FnOnce(&Path) -> T) -> T {
    let folder = tempfile::tempdir().unwrap();
    for (name, value) in files {
        std::fs::write(folder.path().join(name), value.to_string()).unwrap();
    }
    look(folder.path())
}

fn open(file: &Value) -> Result<TextTokenizer, CalibError> {
    in_folder(&[("tokenizer.json", file)], TextTokenizer::from_folder)
}

fn template(before: &[&str], after: &[&str]) -> Value {
    let special = |token: &&str| json!({"SpecialToken": {"id": token, "type_id": 0}});
    let text = json!({"Sequence": {"id": "A", "type_id": 0}});
    let single: Vec<Value> = before
        .iter()
        .map(special)
        .chain([text])
        .chain(after.iter().map(special))
        .collect();
    let ids = |token: &str| if token == "<s>" { 1 } else { 2 };
    let tokens = before.iter().chain(after).map(|token| {
        (
            (*token).to_owned(),
            json!({"id": token, "ids": [ids(token)], "tokens": [token]}),
        )
    });
    let pair = json!([{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}]);
    json!({"type": "TemplateProcessing", "single": single, "pair": pair,
           "special_tokens": tokens.collect::<serde_json::Map<_, _>>()})
}

#[test]
fn special_tokens_are_those_of_transformers() {
    // transformers 5 takes what tokenizer.json says of special tokens, whatever the class is and whatever
    // tokenizer_config.json asks for.
    let (bos, eos) = (Some(1), Some(2));
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    for (processor, before, after) in [
        (Value::Null, None, None),
        (level, None, None),
        (template(&["<s>"], &[]), bos, None),
        (template(&["<s>"], &["</s>"]), bos, eos),
        (template(&[], &["</s>"]), None, eos),
    ] {
        let file = with(|file| file["post_processor"] = processor.clone());
        for class in [
            "LlamaTokenizer",
            "LlamaTokenizerFast",
            "PreTrainedTokenizerFast",
            "TokenizersBackend",
        ] {
            for (add_bos, add_eos) in [(true, false), (false, true), (true, true), (false, false)] {
                let config = json!({"tokenizer_class": class, "add_bos_token": add_bos, "add_eos_token": add_eos,
                                    "bos_token": "<s>", "eos_token": "</s>", "model_max_length": 1e30});
                let files = [("tokenizer.json", &file), ("tokenizer_config.json", &config)];
                let (tokenizer, remark) = in_folder(&files, |folder| {
                    let tokenizer = TextTokenizer::from_folder(folder).unwrap();
                    let remark = tokenizer.remark();
                    (tokenizer, remark)
                });
                let expected: Vec<u32> = before.into_iter().chain(IDS).chain(after).collect();
                assert_eq!(tokenizer.encode(TEXT, true).unwrap(), expected, "{processor} {config}");
                assert_eq!(tokenizer.encode(TEXT, false).unwrap(), IDS);
                let differs = (add_bos && before.is_none()) || (add_eos && after.is_none());
                assert_eq!(remark.is_some(), differs, "{processor} {config}");
            }
        }
    }
}

#[test]
fn truncation_padding_and_dropout_are_ignored() {
    let file = with(|file| {
        file["truncation"] = json!({"direction": "Right", "max_length": 8, "strategy": "LongestFirst", "stride": 0});
        file["padding"] = json!({"strategy": {"Fixed": 12}, "direction": "Right", "pad_to_multiple_of": null,
                                 "pad_id": 0, "pad_type_id": 0, "pad_token": "<unk>"});
        file["model"]["dropout"] = json!(0.5);
    });
    let tokenizer = open(&file).unwrap();
    for _ in 0..4 {
        assert_eq!(tokenizer.encode(TEXT, true).unwrap()[1..], IDS);
    }
    assert_eq!(tokenizer.encode("a", true).unwrap().len(), 2);
}

#[test]
fn folders_of_other_formats_say_how_to_make_tokenizer_json() {
    for name in [
        "tokenizer.model",
        "tokenizer.model.v3",
        "tekken.json",
        "spiece.model",
        "vocab.txt",
        "tiktoken.model",
    ] {
        let error = in_folder(&[(name, &json!("x"))], TextTokenizer::from_folder)
            .unwrap_err()
            .to_string();
        let words = [
            "tokenizer.json",
            &format!("only {name};"),
            "AutoTokenizer",
            "save_pretrained",
        ];
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n";
    std::fs::write(folder.path().join("tokenizer.json"), pointer).unwrap();
    assert!(
        TextTokenizer::from_folder(folder.path())
            .unwrap_err()
            .to_string()
            .contains("git lfs pull")
    );
}

#[test]
fn harmful_files_are_refused() {
    let sequence = |parts: Vec<Value>| json!({"type": "Sequence", "normalizers": parts});
    let replace = |content: String| json!({"type": "Replace", "pattern": {"String": "a"}, "content": content});
    let many = |count| (0..count).map(|_| replace("aa".into())).collect();
    for (what, change) in [
        (
            "an empty charsmap",
            json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAAAA=="}}),
        ),
        (
            "a charsmap of eight GiB",
            json!({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "////fwAAAAAAAAAA"}}),
        ),
        (
            "the same in a sequence",
            json!({"normalizer": sequence(vec![
            json!({"type": "Precompiled", "precompiled_charsmap": "////fwAAAAAAAAAA"})])}),
        ),
        (
            "pieces of no length",
            json!({"pre_tokenizer": {"type": "FixedLength", "length": 0}}),
        ),
        (
            "stripping more than there is",
            json!({"decoder": {"type": "Strip", "content": "e", "start": 0, "stop": 9}}),
        ),
        (
            "a template of very many tokens",
            json!({"post_processor": {
                "type": "TemplateProcessing",
                "single": vec![json!({"SpecialToken": {"id": "x", "type_id": 0}}); 200],
                "pair": [],
                "special_tokens": {"x": {"id": "x", "ids": vec![1; 200], "tokens": vec!["x"; 200]}},
            }}),
        ),
        ("replacements that explode", json!({"normalizer": sequence(many(40))})),
        (
            "a long replacement",
            json!({"normalizer": replace("a".repeat(1_000_000))}),
        ),
        (
            "a long prefix",
            json!({"normalizer": {"type": "Prepend", "prepend": "a".repeat(1_000_000)}}),
        ),
        (
            "a template without its token",
            json!({"post_processor": {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}], "pair": [], "special_tokens": {}}}),
        ),
        ("a model that is none", json!({"model": {"type": "BPE"}})),
    ] {
        let file = with(|file| {
            for (key, value) in change.as_object().unwrap() {
                file[key] = value.clone();
            }
        });
        // Not all are found when the file is read; none does harm.
        let result = open(&file).and_then(|tokenizer| {
            let ids = tokenizer.encode("a tale that ended", true)?;
            (0..512).try_for_each(|id| tokenizer.decode(&[id], false).map(drop))?;
            tokenizer.decode(&ids, false)
        });
        let error = result.expect_err(what).to_string();
        assert!(error.contains("tokenizer.json"), "{what}: {error}");
    }
}

#[test]
fn merges_whose_prefix_does_not_fit_are_an_error() {
    let file = with(|file| file["model"]["continuing_subword_prefix"] = json!("a long prefix"));
    let error = open(&file).unwrap_err().to_string();
    assert!(error.contains("tokenizer.json: not a valid tokenizer file"), "{error}");
}

#[test]
fn a_text_without_blank_lines_is_bounded_work() {
    let tokenizer = TextTokenizer::from_folder(&models().join("stories260k")).unwrap();
    let text = "Once upon a time there was a little dog. ".repeat(20_000);
    let ids = tokenizer.encode(&text, true).unwrap();
    // The sentence is the same wherever it stands.
    let sentence = &ids[1..];
    let length = sentence.len() / 20_000;
    assert_eq!(sentence[..length], sentence[length * 9_999..length * 10_000]);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), text);
}
