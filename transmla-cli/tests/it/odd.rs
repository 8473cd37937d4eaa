//! Odd model folders: what `inspect` says is what `convert` does, and what was taken against config.json is told.

use serde_json::{Value, json};

use crate::support::{Workplace, configs, names, transmla};

/// Whether `inspect` promises the stock form, and whether `convert` plans it.
fn stock_forms(model: &str) -> (Value, bool) {
    let inspected = transmla(&["inspect", "--json", "--model-path", model]).json();
    let plan = "convert --dry-run --kv-budget 50% --cal-dataset stories --json --model-path";
    let plan: Vec<&str> = plan.split_whitespace().chain([model]).collect();
    let class = transmla(&plan).json()["class"].as_str().unwrap().to_owned();
    let conversion = &inspected["conversion"];
    match class.starts_with("DeepseekV3") {
        true => assert_eq!(conversion["deepseek_style_obstacle"], Value::Null, "{model}"),
        false => assert_eq!(conversion["class"], json!(class), "{model}"),
    }
    (conversion["deepseek_style"].clone(), class.starts_with("DeepseekV3"))
}

#[test]
fn inspect_promises_the_form_that_convert_plans() {
    for name in names(&configs()) {
        let (promised, planned) = stock_forms(configs().join(&name).to_str().unwrap());
        assert_eq!(promised, json!(planned), "{name}");
    }
    let llama3 = json!({
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    });
    for (key, value, stock) in [
        ("rope_scaling", llama3, false),
        ("rope_scaling", json!({"type": "linear", "factor": 4.0}), false),
        ("rope_scaling", json!({"type": "yarn", "factor": 4.0}), false),
        ("rope_scaling", json!({"type": "dynamic", "factor": 4.0}), true),
        (
            "rope_scaling",
            json!({"rope_theta": 5000.0, "rope_type": "default"}),
            true,
        ),
        ("sliding_window", json!(16), true),
        ("attention_bias", json!(true), true),
        ("model_type", json!("mistral"), false),
    ] {
        let place = Workplace::new();
        place.set_config(key, value.clone());
        let (promised, planned) = stock_forms(&place.arg("model"));
        assert_eq!((promised, planned), (json!(stock), stock), "{key}: {value}");
    }
}

#[test]
fn what_the_weights_say_against_config_json_is_told() {
    let place = Workplace::new();
    place.set_config("attention_bias", json!(true));
    place.set_config("vocab_size", json!(500));
    let model = place.arg("model");
    let text = transmla(&["inspect", "--model-path", &model]).succeeds();
    for words in [
        "vocabulary 512",
        "512 rows",
        "vocab_size 500",
        "biases",
        "they are zero",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let inspected = transmla(&["inspect", "--json", "--model-path", &model]).json();
    assert_eq!(inspected["notes"].as_array().unwrap().len(), 3);
    let converted = transmla(&place.convert(&["--ppl-eval-batch-size", "0", "--refine", "0"]));
    assert!(
        converted.stderr.contains("note: the embedding has 512 rows"),
        "{converted:?}"
    );
    converted.succeeds();
    let config: Value = serde_json::from_slice(&std::fs::read(place.path("outputs/config.json")).unwrap()).unwrap();
    assert_eq!(
        (&config["vocab_size"], &config["attention_bias"]),
        (&json!(512), &json!(false))
    );
    let inspected = transmla(&["inspect", "--json", "--model-path", &place.arg("outputs")]).json();
    assert_eq!(inspected["notes"], Value::Null);
}

#[test]
fn the_snapshot_of_a_cached_repository_is_told() {
    let place = Workplace::new();
    let root = place.path("models--org--name");
    std::fs::create_dir_all(root.join("refs")).unwrap();
    std::fs::create_dir_all(root.join("snapshots/other")).unwrap();
    std::fs::write(root.join("refs/main"), "0123abcd").unwrap();
    std::fs::rename(place.path("model"), root.join("snapshots/0123abcd")).unwrap();
    let ran = transmla(&["inspect", "--model-path", root.to_str().unwrap()]);
    let told = root.join("snapshots/0123abcd").display().to_string();
    assert!(ran.stderr.contains(&told), "{ran:?}");
    ran.succeeds();
    std::fs::remove_file(root.join("refs/main")).unwrap();
    transmla(&["inspect", "--model-path", root.to_str().unwrap()]).fails(1, &["2 snapshots", "main"]);
}

/// A cache that went through git or an archive without links has the text of their targets in their place.
#[test]
fn a_cached_repository_whose_links_are_text() {
    let place = Workplace::new();
    let root = place.path("models--org--name");
    let snapshot = root.join("snapshots/0123abcd");
    for folder in [&root.join("blobs"), &snapshot] {
        std::fs::create_dir_all(folder).unwrap();
    }
    for (index, name) in names(&place.path("model")).iter().enumerate() {
        std::fs::rename(place.path("model").join(name), root.join(format!("blobs/00{index}"))).unwrap();
        std::fs::write(snapshot.join(name), format!("../../blobs/00{index}")).unwrap();
    }
    let root = root.to_str().unwrap();
    let text = transmla(&["inspect", "--model-path", root]).succeeds();
    assert!(text.contains("5 layers, hidden 64"), "{text}");
    let arguments = place.convert(&["--ppl-eval-batch-size", "0", "--refine", "0", "--model-path", root]);
    transmla(&arguments).succeeds();
    assert!(place.path("outputs/tokenizer.json").is_file());
    // What leads elsewhere is not followed.
    for target in ["../../blobs/../../secret", "../../../secret", "../../blobs/gone"] {
        std::fs::write(snapshot.join("config.json"), target).unwrap();
        transmla(&["inspect", "--model-path", root]).fails(1, &["config.json", "link"]);
    }
}
