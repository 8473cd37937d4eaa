//! GGUF files in the place of model folders.

use std::collections::HashMap;
use std::path::Path;

use serde_json::Value;
use transmla_core::checkpoint::{GgufTensor, GgufValue, GgufWriter};
use transmla_core::layout::model_tensors;
use transmla_core::{Checkpoint, GgufDtype, ModelConfig, StorageDtype};

use crate::support::{Workplace, transmla};

/// The embedded model's tokenizer as llama.cpp has it.
fn tokenizer(folder: &Path) -> Vec<(String, GgufValue)> {
    let json: Value = serde_json::from_slice(&std::fs::read(folder.join("tokenizer.json")).unwrap()).unwrap();
    let vocabulary = json["model"]["vocab"].as_object().unwrap();
    let mut tokens = vec![String::new(); vocabulary.len()];
    for (token, id) in vocabulary {
        tokens[id.as_u64().unwrap() as usize] = token.clone();
    }
    let merges = json["model"]["merges"].as_array().unwrap();
    let ranks: HashMap<String, usize> = merges
        .iter()
        .enumerate()
        .map(|(rank, pair)| (pair.as_str().unwrap().replace(' ', ""), rank))
        .collect();
    let scores = tokens
        .iter()
        .map(|token| -(ranks.get(token).copied().unwrap_or(merges.len()) as f32));
    let kinds = tokens.iter().map(|token| match token.as_str() {
        "<unk>" => 2,
        "<s>" | "</s>" => 3,
        token if token.starts_with("<0x") => 6,
        _ => 1,
    });
    let (scores, kinds) = (scores.collect(), kinds.collect());
    let template = "{% for message in messages %}{{ message.content }}{% endfor %}";
    [
        ("tokenizer.ggml.model", GgufValue::Text("llama".into())),
        ("tokenizer.ggml.scores", GgufValue::Floats(scores)),
        ("tokenizer.ggml.token_type", GgufValue::Ints(kinds)),
        ("tokenizer.ggml.tokens", GgufValue::Texts(tokens)),
        ("tokenizer.ggml.bos_token_id", GgufValue::U32(1)),
        ("tokenizer.ggml.eos_token_id", GgufValue::U32(2)),
        ("tokenizer.chat_template", GgufValue::Text(template.into())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .to_vec()
}

/// The workplace's model as a GGUF file, with its matrices in this format where their rows are whole blocks.
fn write(place: &Workplace, name: &str, dtype: GgufDtype, with_tokenizer: bool) -> String {
    let folder = place.path("model");
    let (config, checkpoint) = (ModelConfig::read(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
    let mut keys = vec![
        ("general.architecture".to_owned(), GgufValue::Text("llama".into())),
        ("general.license".to_owned(), GgufValue::Text("mit".into())),
        (
            "llama.attention.layer_norm_rms_epsilon".to_owned(),
            GgufValue::F32(1e-5),
        ),
    ];
    for (key, size) in [
        ("block_count", 5),
        ("context_length", 512),
        ("embedding_length", 64),
        ("feed_forward_length", 172),
        ("attention.head_count", 8),
        ("attention.head_count_kv", 4),
        ("rope.dimension_count", 8),
    ] {
        keys.push((format!("llama.{key}"), GgufValue::U32(size)));
    }
    if with_tokenizer {
        keys.extend(tokenizer(&folder));
    }
    let mut tensors = Vec::new();
    for spec in model_tensors(&config) {
        let mut values = checkpoint.values(&spec.name, &spec.shape).unwrap();
        if spec.name.contains(".q_proj.") || spec.name.contains(".k_proj.") {
            // Heads of 8 rows: rotary pairs side by side.
            let rows = (0..spec.shape[0]).map(|row| row / 8 * 8 + row % 8 / 2 + row % 2 * 4);
            values = rows.flat_map(|row| values[row * 64..(row + 1) * 64].to_vec()).collect();
        }
        let name = match spec.name.as_str() {
            "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
            "model.norm.weight" => "output_norm.weight".to_owned(),
            name => name
                .replace("model.layers.", "blk.")
                .replace("self_attn.o_proj", "attn_output")
                .replace("self_attn.", "attn_")
                .replace("post_attention_layernorm", "ffn_norm")
                .replace("input_layernorm", "attn_norm")
                .replace("mlp.", "ffn_")
                .replace("_proj", ""),
        };
        let whole = spec.shape.len() > 1 && spec.shape[1].is_multiple_of(dtype.block());
        let dtype = if whole { dtype } else { StorageDtype::F32.into() };
        tensors.push((
            GgufTensor {
                name,
                shape: spec.shape,
                dtype,
            },
            values,
        ));
    }
    let path = place.path(name);
    let described = tensors.iter().map(|(tensor, _)| tensor.clone()).collect();
    let mut writer = GgufWriter::create(&path, &keys, described, true).unwrap();
    for (tensor, values) in &tensors {
        writer.write(&tensor.name, values).unwrap();
    }
    writer.commit().unwrap();
    place.arg(name)
}

fn perplexity(model: &str) -> f64 {
    let windows = ["--seqlen", "64", "--max-windows", "4", "--json"];
    let arguments = [&["eval", "--model-path", model, "--dataset", "stories"], &windows[..]].concat();
    transmla(&arguments).json()["perplexity"].as_f64().unwrap()
}

#[test]
fn it_is_the_model_that_it_was_made_from() {
    let place = Workplace::new();
    let full = write(&place, "full.gguf", StorageDtype::F32.into(), true);
    let small = write(&place, "small.gguf", GgufDtype::Q8_0, true);
    let folder = place.arg("model");
    let original = perplexity(&folder);
    // The same ids by the same tokenizer, and the same numbers.
    assert!((perplexity(&full) / original - 1.0).abs() < 1e-5);
    let quantised = perplexity(&small);
    assert!(
        quantised != original && (quantised / original - 1.0).abs() < 0.02,
        "{quantised} {original}"
    );
    let generate = |model: &str| {
        let arguments = [
            "generate",
            "--model-path",
            model,
            "--prompt",
            "Once upon a time",
            "--max-new-tokens",
            "40",
        ];
        transmla(&arguments).succeeds()
    };
    assert_eq!(generate(&full), generate(&folder));
    let seen = transmla(&["inspect", "--model-path", &small, "--json"]).json();
    assert_eq!(
        (&seen["format"], &seen["model_type"]),
        (&"GGUF".into(), &"llama".into())
    );
    assert_eq!(seen["dtypes"]["Q8_0"], 31);
    let shown = transmla(&["inspect", "--model-path", &small]).succeeds();
    assert!(shown.contains("GGUF: f32, q8_0"), "{shown}");
}

#[test]
fn it_is_converted_as_any_model() {
    let place = Workplace::new();
    let small = write(&place, "small-Q8_0.gguf", GgufDtype::Q8_0, true);
    transmla(&place.convert(&["--model-path", &small, "--dtype", "fp32"])).succeeds();
    let read = |name: &str| std::fs::read_to_string(place.path("outputs").join(name)).unwrap();
    let card = read("README.md");
    assert!(
        card.contains("quantised weights: Q8\\_0 (31 tensors)")
            || card.contains("quantised weights: Q8_0 (31 tensors)"),
        "{card}"
    );
    assert!(
        card.contains("license: mit") || card.contains("license: \"mit\""),
        "{card}"
    );
    assert!(!read("transmla.toml").contains(place.path("").to_str().unwrap()));
    assert!(read("tokenizer_config.json").contains("chat_template"));
    let ids = |folder: &str| -> Value {
        serde_json::from_slice(&std::fs::read(place.path(folder).join("tokenizer.json")).unwrap()).unwrap()
    };
    assert_eq!(ids("outputs")["model"]["vocab"], ids("model")["model"]["vocab"]);
    transmla(&["verify", "--model-path", &place.arg("outputs")]).succeeds();
    let outputs = place.arg("outputs");
    let saved = perplexity(&outputs);
    assert!(saved.is_finite());
    // The recipe makes it again.
    let recipe = place.arg("outputs/transmla.toml");
    transmla(&["convert", "--recipe", &recipe, "--save-path", &place.arg("again")]).succeeds();
    let weights = |folder: &str| std::fs::read(place.path(folder).join("model.safetensors")).unwrap();
    assert!(weights("outputs") == weights("again"));
}

#[test]
fn without_a_tokenizer_one_beside_it_counts() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("files")).unwrap();
    let file = write(&place, "files/bare.gguf", GgufDtype::Q5_0, false);
    let generate = || {
        transmla(&[
            "generate",
            "--model-path",
            &file,
            "--prompt",
            "Once",
            "--max-new-tokens",
            "3",
        ])
    };
    generate().fails(1, &["bare.gguf", "no tokenizer", "put the tokenizer.json"]);
    std::fs::copy(place.path("model/tokenizer.json"), place.path("files/tokenizer.json")).unwrap();
    generate().succeeds();
    // A folder with one file is that file, one with two is not.
    let folder = place.arg("files");
    transmla(&["inspect", "--model-path", &folder]).succeeds();
    std::fs::copy(&file, place.path("files/other.gguf")).unwrap();
    transmla(&["inspect", "--model-path", &folder]).fails(1, &["2 GGUF files", "bare.gguf, other.gguf"]);
}

/// What is written for llama.cpp is a converted model, which no other conversion begins with.
#[test]
fn a_converted_model_in_gguf_is_refused_by_name() {
    let place = Workplace::new();
    transmla(&place.convert(&["--format", "gguf"])).succeeds();
    let file = place.arg("outputs/model.gguf");
    transmla(&["inspect", "--model-path", &file]).fails(1, &["deepseek2", "llama, qwen2"]);
    // Its folder is described by config.json.
    transmla(&["inspect", "--model-path", &place.arg("outputs")]).succeeds();
}
