//! What leaves this machine: no path of it, no file from outside the model's folder, nobody else's repository.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Workplace, command, run, transmla};

/// Every file below a folder with its contents.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => found.extend(files(&path)),
            false => found.push((path.display().to_string(), std::fs::read(&path).unwrap())),
        }
    }
    found
}

#[track_caller]
fn assert_silent(folder: &Path, secrets: &[&str]) {
    let files = files(folder);
    assert!(!files.is_empty());
    for (name, contents) in files {
        for secret in secrets {
            let found = contents.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{name} holds {secret}");
        }
    }
}

fn read(place: &Workplace, file: &str) -> String {
    std::fs::read_to_string(place.path(file)).unwrap()
}

/// Settings as fine-tuning on some machine leaves them.
fn mark_origin(place: &Workplace) {
    let code = json!({"AutoTokenizer": ["tokenization_x.XTokenizer", null], "AutoModelForCausalLM": "modeling_x.X"});
    place.set_config("_name_or_path", json!("/home/alice/secret-model"));
    place.set_config("auto_map", code.clone());
    let path = place.path("model/tokenizer_config.json");
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    settings["_name_or_path"] = json!("/home/alice/secret-model");
    settings["auto_map"] = code;
    settings["tokenizer_class"] = json!("XTokenizer");
    std::fs::write(path, settings.to_string()).unwrap();
}

#[test]
fn nothing_written_names_a_path_of_this_machine() {
    let place = Workplace::new();
    mark_origin(&place);
    let text = "The cat sat on the mat and looked at the big red ball in the garden. ".repeat(20);
    std::fs::create_dir(place.path("texts")).unwrap();
    std::fs::write(place.path("texts/notes.txt"), format!("{text}\n\n").repeat(20)).unwrap();
    let home = place.path("").canonicalize().unwrap();
    let secrets = [home.to_str().unwrap(), &place.arg(""), "alice", "secret-model"];
    for more in [&[][..], &["--format", "gguf"], &["--style", "family"]] {
        let text = place.arg("texts/notes.txt");
        let given = [&["--cal-dataset", &text, "--force"], more].concat();
        transmla(&place.convert(&given)).succeeds();
        assert_silent(&place.path("outputs"), &secrets);
        let recipe = read(&place, "outputs/transmla.toml");
        for line in ["model-path = \"../model\"", "cal-dataset = \"../texts/notes.txt\""] {
            assert!(recipe.contains(line), "{recipe}");
        }
        let card = read(&place, "outputs/README.md");
        assert!(
            card.contains("tokens of notes.txt") || card.contains("| notes.txt"),
            "{card}"
        );
        assert!(!card.contains("base_model"), "{card}");
    }
    let config: Value = serde_json::from_str(&read(&place, "outputs/config.json")).unwrap();
    assert!(
        config["auto_map"]["AutoModelForCausalLM"]
            .as_str()
            .unwrap()
            .starts_with("modeling_transmla.")
    );
    let settings: Value = serde_json::from_str(&read(&place, "outputs/tokenizer_config.json")).unwrap();
    assert_eq!(
        (&settings["auto_map"], &settings["tokenizer_class"]),
        (&Value::Null, &json!("PreTrainedTokenizerFast"))
    );
    // A sweep's picture and figures too.
    let (model, figures, picture) = (place.arg("model"), place.arg("sweep/s.json"), place.arg("sweep/s.svg"));
    let page = place.arg("sweep/s.html");
    std::fs::create_dir(place.path("sweep")).unwrap();
    let text = place.arg("texts/notes.txt");
    let save = place.arg("kept");
    let words =
        "sweep --budgets 8+28 --methods coherent --refine 0 --cal-nsamples 4 --cal-max-seqlen 32 --eval-seqlen 32";
    let words: Vec<&str> = words.split(' ').collect();
    let given = [
        "--model-path",
        &model,
        "--cal-dataset",
        &text,
        "--save-path",
        &save,
        "--svg",
        &picture,
        "--figures",
        &figures,
        "--report",
        &page,
    ];
    transmla(&[&words[..], &given].concat()).succeeds();
    assert_silent(&place.path("sweep"), &secrets);
    assert_silent(&place.path("kept"), &secrets);
}

#[test]
fn a_local_folder_is_nobodys_repository() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("models")).unwrap();
    std::fs::rename(place.path("model"), place.path("models/llama")).unwrap();
    let arguments = place.convert(&["--model-path", "models/llama"]);
    run(command().args(&arguments).current_dir(place.path(""))).succeeds();
    let card = read(&place, "outputs/README.md");
    assert!(!card.contains("base_model") && card.contains("# llama, with"), "{card}");
    assert!(read(&place, "outputs/transmla.toml").contains("model-path = \"../models/llama\""));
    // The recipe works wherever it is started, and wherever everything is moved to together.
    std::fs::create_dir(place.path("moved")).unwrap();
    for folder in ["models", "outputs"] {
        std::fs::rename(place.path(folder), place.path("moved").join(folder)).unwrap();
    }
    let (recipe, again) = (place.arg("moved/outputs/transmla.toml"), place.arg("moved/again"));
    transmla(&["convert", "--recipe", &recipe, "--save-path", &again]).succeeds();
    for file in ["model.safetensors", "README.md"] {
        let [first, second] = ["outputs", "again"].map(|folder| place.path("moved").join(folder).join(file));
        assert!(
            std::fs::read(first).unwrap() == std::fs::read(second).unwrap(),
            "{file}"
        );
    }
    std::fs::rename(place.path("moved/models"), place.path("elsewhere")).unwrap();
    transmla(&["convert", "--recipe", &recipe, "--save-path", &again, "--force"])
        .fails(1, &["models/llama", "--model-path"]);
}

#[test]
fn a_model_of_the_hub_keeps_its_id_and_its_licence() {
    let place = Workplace::new();
    let card = "---\nlicense: other\nlicense_name: tiny\nlicense_link: LICENSE\nlanguage:\n- en\n- no\nextra: !!x\n---\n# Tiny\n";
    std::fs::write(place.path("model/README.md"), card).unwrap();
    std::fs::write(place.path("model/NOTICE"), "note").unwrap();
    std::fs::create_dir_all(place.path("model/additional_chat_templates")).unwrap();
    std::fs::write(place.path("model/additional_chat_templates/rag.jinja"), "{{ x }}").unwrap();
    let commit = "0123456789abcdef0123".repeat(2);
    let snapshot = format!("hub/models--org--tiny/snapshots/{commit}");
    std::fs::create_dir_all(place.path("hub/models--org--tiny/snapshots")).unwrap();
    std::fs::rename(place.path("model"), place.path(&snapshot)).unwrap();
    transmla(&place.convert(&["--model-path", &place.arg(&snapshot)])).succeeds();
    let card = read(&place, "outputs/README.md");
    for line in [
        "model_name: tiny-MLA",
        "base_model: \"org/tiny\"",
        "license: other",
        "license_name: tiny",
        "license_link: LICENSE",
        "language:\n- en\n- \"no\"\n",
        "# tiny, with",
    ] {
        assert!(card.contains(line), "no {line} in {card}");
    }
    assert!(!card.contains("!!x"), "{card}");
    let recipe = read(&place, "outputs/transmla.toml");
    assert!(
        recipe.contains("model-path = \"org/tiny\"") && recipe.contains(&commit),
        "{recipe}"
    );
    assert_eq!(read(&place, "outputs/NOTICE"), "note");
    assert_eq!(read(&place, "outputs/additional_chat_templates/rag.jinja"), "{{ x }}");
}

#[cfg(unix)]
#[test]
fn links_pipes_and_devices_are_left_out() {
    use std::os::unix::fs::symlink;

    let place = Workplace::new();
    std::fs::write(place.path("secret"), "top secret").unwrap();
    std::fs::remove_file(place.path("model/LICENSE")).unwrap();
    symlink(place.path("secret"), place.path("model/LICENSE")).unwrap();
    symlink("/dev/zero", place.path("model/NOTICE")).unwrap();
    let pipe = std::process::Command::new("mkfifo")
        .arg(place.path("model/README.md"))
        .status();
    assert!(pipe.unwrap().success());
    let ran = transmla(&place.convert(&[]));
    for name in ["LICENSE", "NOTICE", "README.md"] {
        let warning = format!("warning: {name} of the original is left out");
        assert!(ran.stderr.contains(&warning), "{ran:?}");
    }
    ran.succeeds();
    assert!(!place.path("outputs/LICENSE").exists() && !place.path("outputs/NOTICE").exists());
    assert_silent(&place.path("outputs"), &["top secret"]);
    // A tokenizer from outside is not taken for the model's own.
    std::fs::rename(place.path("model/tokenizer.json"), place.path("tokenizer.json")).unwrap();
    symlink("../tokenizer.json", place.path("model/tokenizer.json")).unwrap();
    transmla(&place.convert(&["--force"])).fails(1, &["tokenizer.json", "copy the file"]);
}

#[cfg(unix)]
#[test]
fn names_steer_no_terminal() {
    let place = Workplace::new();
    let name = "mo\u{1b}[2Jdel\u{7}\u{9b}1m|x`<b>";
    std::fs::rename(place.path("model"), place.path(name)).unwrap();
    let model = place.arg(name);
    let quiet = |text: &str| !text.contains(['\u{1b}', '\u{7}', '\u{9b}']);
    for form in [&[][..], &["--json"]] {
        let ran = transmla(&place.convert(&[&["--model-path", &model, "--force"], form].concat()));
        assert!(quiet(&ran.stdout) && quiet(&ran.stderr), "{ran:?}");
        ran.succeeds();
        let ran = transmla(&[&["inspect", "--model-path", &model], form].concat());
        assert!(quiet(&ran.stdout) && quiet(&ran.stderr), "{ran:?}");
        ran.succeeds();
    }
    let card = read(&place, "outputs/README.md");
    assert!(
        quiet(&card) && card.contains(r"# mo \[2Jdel  1m\|x\`\<b\>, with"),
        "{card}"
    );
    std::fs::write(
        place.path(name).join("config.json"),
        "{\"model_type\": \"ll\\u001b[31mama\"}",
    )
    .unwrap();
    let ran = transmla(&["inspect", "--model-path", &model]);
    assert!(quiet(&ran.stderr) && ran.stderr.contains("\\u{1b}"), "{ran:?}");
    ran.fails(1, &["ll\\u{1b}[31mama"]);
}
