//! Models of the hub, from a cache laid out as its clients lay it out.

use crate::support::{Workplace, command, run, write_ids};

#[test]
fn a_cached_model_is_used_offline() {
    let place = Workplace::new();
    let root = place.path("hub/models--org--tiny");
    std::fs::create_dir_all(root.join("refs")).unwrap();
    std::fs::create_dir_all(root.join("snapshots")).unwrap();
    std::fs::write(root.join("refs/main"), "abc123").unwrap();
    std::fs::rename(place.path("model"), root.join("snapshots/abc123")).unwrap();
    let inspect = |revision: &str, variable: &str, value: String| {
        let arguments = ["inspect", "--model-path", "org/tiny", "--revision", revision];
        run(command().args(arguments).env(variable, value))
    };
    assert!(
        inspect("main", "HF_HUB_CACHE", place.arg("hub"))
            .succeeds()
            .contains("llama")
    );
    assert!(inspect("abc123", "HF_HOME", place.arg("")).succeeds().contains("llama"));
    let words = ["org/tiny", "revision v2", "HF_HUB_OFFLINE"];
    inspect("v2", "HF_HUB_CACHE", place.arg("hub")).fails(1, &words);
}

#[test]
fn a_hub_that_cannot_be_reached_is_named() {
    let arguments = ["inspect", "--model-path", "org/tiny"];
    let place = Workplace::new();
    let mut command = command();
    command.args(arguments).env("HF_HUB_CACHE", place.arg("hub"));
    // Nothing listens on port 9 here.
    command
        .env("HF_HUB_OFFLINE", "0")
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    run(&mut command).fails(1, &["org/tiny", "check the network"]);
}

/// Whoever has no home folder has no cache of the hub either, and can do all else.
#[test]
fn without_a_home() {
    let homeless = |arguments: &[&str]| {
        let mut command = command();
        for variable in ["HOME", "USERPROFILE", "XDG_CACHE_HOME"] {
            command.env_remove(variable);
        }
        run(command.args(arguments))
    };
    let place = Workplace::new();
    write_ids(&place.path("ids.safetensors"), &[1, 2], [1, 2]);
    let (ids, output, logits) = (
        place.arg("ids.safetensors"),
        place.arg("output"),
        place.arg("logits.safetensors"),
    );
    for line in [
        "convert --save-path OUTPUT",
        "eval --dataset stories --against embedded",
        "verify --quiet",
        "export --output OUTPUT",
        "inspect",
        "generate --prompt once",
        "chat",
        "bench",
        "sweep --output OUTPUT",
    ] {
        let words = line.split(' ').map(|word| match word {
            "OUTPUT" => output.as_str(),
            word => word,
        });
        let words: Vec<&str> = words.chain(["--model-path", "org/model"]).collect();
        homeless(&words).fails(1, &["org/model", "HF_HOME"]);
    }
    let logits = ["logits", "--input-ids", &ids, "--output", &logits, "--model-path"];
    homeless(&[&logits[..], &["org/model"]].concat()).fails(1, &["org/model", "HF_HOME"]);
    homeless(&["eval", "--model-path", "embedded", "--dataset", "ptb"]).fails(1, &["ptb", "HF_HOME"]);
    homeless(&[&logits[..], &["embedded"]].concat()).succeeds();
    homeless(&["inspect", "--model-path", "embedded"]).succeeds();
    homeless(&["completions", "bash"]).succeeds();
    let words: Vec<String> = place.convert(&[]);
    homeless(&words.iter().map(String::as_str).collect::<Vec<_>>()).succeeds();
}
