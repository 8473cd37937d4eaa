//! `transmla export` writes GGUF.

use crate::support::{Workplace, transmla};

#[test]
fn a_stock_model_becomes_one_file() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32"])).succeeds();
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    let arguments = ["export", "--model-path", &model, "--output", &output];
    transmla(&arguments).succeeds();
    let file = std::fs::read(place.path("m.gguf")).unwrap();
    assert_eq!(file[..8], *b"GGUF\x03\0\0\0");
    let tensors = u64::from_le_bytes(file[8..16].try_into().unwrap());
    // Embedding, norm and head; 13 of each layer.
    assert_eq!(tensors, 3 + 5 * 13);
    let has = |words: &[u8]| file.windows(words.len()).any(|window| window == words);
    for words in ["deepseek2.attention.key_length_mla", "blk.4.attn_k_b.weight", "<0x0A>"] {
        assert!(has(words.as_bytes()), "{words}");
    }
    assert_eq!(place.contents(), ["m.gguf", "outputs"]);
    transmla(&arguments).fails(1, &["m.gguf exists", "--force"]);
    transmla(&[&arguments[..], &["--force", "-q"]].concat()).succeeds();
    // In 8 and in about 5 bits a number in the place of 32.
    let mut sizes = vec![file.len()];
    for format in ["q8_0", "q4_k_m"] {
        let quantised = [&arguments[..], &["--force", "--quantize", format]].concat();
        transmla(&quantised).succeeds();
        sizes.push(std::fs::read(place.path("m.gguf")).unwrap().len());
    }
    assert!(sizes.windows(2).all(|pair| pair[1] < pair[0]), "{sizes:?}");
    transmla(&[&arguments[..], &["--quantize", "q3_k"]].concat()).fails(2, &["q3_k", "q4_k_m"]);
}

#[test]
fn what_llama_cpp_does_not_know_is_refused() {
    let place = Workplace::new();
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    let arguments = ["export", "--model-path", &model, "--output", &output];
    transmla(&place.convert(&["--style", "family"])).succeeds();
    transmla(&arguments).fails(1, &["llamamla"]);
    transmla(&["export", "--model-path", "embedded", "--output", &output]).fails(1, &["no latent attention"]);
    transmla(&place.convert(&["--force"])).succeeds();
    std::fs::remove_file(place.path("outputs/tokenizer.json")).unwrap();
    transmla(&arguments).fails(1, &["tokenizer.json"]);
    assert_eq!(place.contents(), ["outputs"]);
}

/// What a model is read from stays, even with --force and by whatever links it is reached.
#[test]
fn no_input_is_overwritten() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32"])).succeeds();
    crate::support::write_ids(&place.path("ids.safetensors"), &[1, 2, 3, 4], [2, 2]);
    let (model, ids) = (place.arg("outputs"), place.arg("ids.safetensors"));
    let all = || {
        let files = crate::support::names(&place.path("outputs")).into_iter();
        let mut files: Vec<_> = files.map(|name| place.path("outputs").join(name)).collect();
        files.push(place.path("ids.safetensors"));
        files
            .iter()
            .map(|file| std::fs::read(file).unwrap())
            .collect::<Vec<_>>()
    };
    let before = all();
    let export = |output: &str| transmla(&["export", "--force", "--model-path", &model, "--output", output]);
    let logits = |output: &str| {
        let words = ["logits", "--force", "--model-path", &model, "--input-ids", &ids];
        transmla(&[&words[..], &["--output", output]].concat())
    };
    let mut outputs = vec![
        "outputs/model.safetensors",
        "outputs/config.json",
        "outputs/../outputs/tokenizer.json",
    ];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink("outputs/model.safetensors", place.path("link")).unwrap();
        std::os::unix::fs::symlink("outputs", place.path("around")).unwrap();
        outputs.extend(["link", "around/config.json"]);
    }
    for output in outputs {
        export(&place.arg(output)).fails(1, &["would overwrite the model", "another --output"]);
        logits(&place.arg(output)).fails(1, &["would overwrite the model", "another --output"]);
    }
    // Through a folder that is not there.
    export(&place.arg("new/../outputs/model.safetensors")).fails(1, &["would overwrite the model"]);
    logits(&ids).fails(1, &["would overwrite the token ids"]);
    assert!(before == all(), "a file has changed");
    // An exported file may lie with the model, and come again.
    for _ in 0..2 {
        export(&place.arg("outputs/m.gguf")).succeeds();
    }
}

/// A link that leads nowhere is there too, and a pipe is no file to replace.
#[cfg(unix)]
#[test]
fn only_files_are_overwritten() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32"])).succeeds();
    let model = place.arg("outputs");
    std::os::unix::fs::symlink("nothing", place.path("dangling")).unwrap();
    let made = std::process::Command::new("mkfifo").arg(place.path("pipe")).status();
    assert!(made.unwrap().success());
    let export = |output: &str, more: &[&str]| {
        let output = place.arg(output);
        let words = ["export", "--model-path", &model, "--output", &output];
        transmla(&[&words[..], more].concat())
    };
    export("dangling", &[]).fails(1, &["dangling exists", "--force"]);
    for more in [&[][..], &["--force"]] {
        export("pipe", more).fails(1, &["pipe", "not a regular file"]);
        export("model", more).fails(1, &["it is a folder"]);
    }
    assert_eq!(place.contents(), ["dangling", "outputs", "pipe"]);
    export("dangling", &["--force"]).succeeds();
    assert!(place.path("dangling").symlink_metadata().unwrap().is_file());
    assert!(!place.path("nothing").exists());
}

/// A conversion to GGUF leaves what `export` makes of the same conversion, to the byte, and no other weights.
#[test]
fn a_conversion_ends_in_gguf() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp16"])).succeeds();
    let (model, output) = (place.arg("outputs"), place.arg("m.gguf"));
    transmla(&["export", "--model-path", &model, "--output", &output]).succeeds();
    for more in [&["--format", "gguf"][..], &["--target", "llama.cpp"]] {
        let summary = transmla(&place.convert(&[&["--dtype", "fp16", "--force"], more].concat())).succeeds();
        assert!(
            summary.contains("as GGUF") && summary.contains("llama-cli -m"),
            "{summary}"
        );
        let written = std::fs::read(place.path("outputs/model.gguf")).unwrap();
        assert!(written == std::fs::read(place.path("m.gguf")).unwrap(), "{more:?}");
        let files: Vec<String> = crate::support::names(&place.path("outputs"));
        assert!(!files.iter().any(|name| name.contains("safetensors")), "{files:?}");
        for name in ["README.md", "config.json", "transmla.toml"] {
            assert!(files.iter().any(|file| file == name), "{files:?}");
        }
        let card = std::fs::read_to_string(place.path("outputs/README.md")).unwrap();
        assert!(
            card.contains("library_name: gguf") && card.contains("Made for llama.cpp"),
            "{card}"
        );
    }
    let folder = transmla(&place.convert(&["--target", "llama.cpp", "--format", "safetensors", "--force"]));
    folder.succeeds();
    assert!(place.path("outputs/model.safetensors").is_file());
}

/// The file says what it is and how to chat with it, and nothing of the machine.
#[test]
fn a_file_names_its_model_and_carries_its_chat_template() {
    let place = Workplace::new();
    let template = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}";
    std::fs::write(place.path("model/chat_template.jinja"), template).unwrap();
    std::fs::write(
        place.path("model/README.md"),
        "---\nlicense: mit\nlicense_link: https://example.org/mit\n---\n",
    )
    .unwrap();
    let snapshot = format!("hub/models--org--tiny/snapshots/{}", "0123456789abcdef0123".repeat(2));
    std::fs::create_dir_all(place.path("hub/models--org--tiny/snapshots")).unwrap();
    std::fs::rename(place.path("model"), place.path(&snapshot)).unwrap();
    transmla(&place.convert(&["--model-path", &place.arg(&snapshot), "--format", "gguf"])).succeeds();
    let file = std::fs::read(place.path("outputs/model.gguf")).unwrap();
    let has = |words: &[u8]| file.windows(words.len()).any(|window| window == words);
    let text = |text: &str| [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat();
    for (key, value) in [
        ("general.type", "model"),
        ("general.name", "tiny-MLA"),
        ("general.license", "mit"),
        ("general.license.link", "https://example.org/mit"),
        ("general.base_model.0.name", "tiny"),
        ("general.base_model.0.organization", "org"),
        ("general.base_model.0.repo_url", "https://huggingface.co/org/tiny"),
        ("tokenizer.chat_template", template),
    ] {
        // 8 is the kind of a string.
        assert!(
            has(&[text(key), 8u32.to_le_bytes().to_vec(), text(value)].concat()),
            "{key}"
        );
    }
    assert!(!has(place.path("").to_str().unwrap().as_bytes()));
}

/// Nothing is done before it is known that a GGUF file will come out.
#[test]
fn a_conversion_that_cannot_end_in_gguf_does_not_begin() {
    let place = Workplace::new();
    let gguf = |more: &[&str]| transmla(&place.convert(&[&["--format", "gguf"], more].concat()));
    gguf(&["--style", "family"]).fails(1, &["--target llama.cpp", "--style family"]);
    gguf(&["--target", "vllm"]).fails(1, &["--target vllm", "leave --format gguf out"]);
    gguf(&["--format", "safetensors"]).fails(2, &["--format", "multiple times"]);
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    gguf(&["--dry-run"]).fails(1, &["tokenizer.json"]);
    assert!(!place.path("outputs").exists());
}
