//! Running the binary on copies of the embedded model.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// What a run of the binary came to.
#[derive(Debug)]
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// The binary, with an environment that is the same everywhere and a hub that is never asked.
pub fn command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_transmla"));
    let hub = ["HF_HOME", "HF_HUB_CACHE", "HF_TOKEN", "HF_ENDPOINT", "LINES"];
    let proxies = ["ALL_PROXY", "HTTPS_PROXY", "HTTP_PROXY"].map(|name| [name.to_owned(), name.to_lowercase()]);
    for variable in hub.map(str::to_owned).into_iter().chain(proxies.concat()) {
        command.env_remove(variable);
    }
    command.env("COLUMNS", "100").env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs the binary.
pub fn transmla<S: AsRef<std::ffi::OsStr>>(arguments: &[S]) -> Ran {
    run(command().args(arguments))
}

/// Runs a command.
pub fn run(command: &mut Command) -> Ran {
    let output = command.output().expect("the binary starts");
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).expect("stdout is UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("stderr is UTF-8"),
    }
}

impl Ran {
    /// Checks that it did what it should; gives stdout.
    #[track_caller]
    pub fn succeeds(self) -> String {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.stdout
    }

    /// Checks that it did what it should; gives stdout, which is JSON.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        serde_json::from_str(&self.succeeds()).expect("stdout is one JSON value")
    }

    /// Checks that it failed with one message that has all these words, and printed no result.
    #[track_caller]
    pub fn fails(self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        let errors = self.stderr.lines().filter(|line| line.starts_with("error:"));
        assert_eq!(errors.count(), 1, "{self:?}");
        assert!(!self.stderr.contains("panicked"), "{self:?}");
        for word in words {
            assert!(self.stderr.contains(word), "no '{word}' in {}", self.stderr);
        }
    }
}

/// A copy of the embedded model and a place for results.
pub struct Workplace {
    folder: TempDir,
}

impl Workplace {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("model");
        std::fs::create_dir(&model).unwrap();
        for entry in std::fs::read_dir(models().join("stories260k")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), model.join(entry.file_name())).unwrap();
        }
        Self { folder }
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path in it, as an argument.
    pub fn arg(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// Replaces a key of the model's config.json.
    pub fn set_config(&self, key: &str, value: serde_json::Value) {
        let path = self.path("model/config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    /// Arguments of a conversion of the model to `outputs` that takes no time.
    pub fn convert(&self, more: &[&str]) -> Vec<String> {
        let quick = "--qk-mqa-dim 8 --kv-lora-rank 28 --freqfold 1 --cal-dataset stories --cal-nsamples 4 \
                     --cal-max-seqlen 32 --eval-seqlen 32 --eval-max-windows 2";
        let given: Vec<&str> = more.iter().copied().filter(|word| word.starts_with("--")).collect();
        let words: Vec<&str> = quick.split_whitespace().collect();
        let defaults = words.chunks(2).filter(|pair| !given.contains(&pair[0])).flatten();
        let (model, target) = (self.arg("model"), self.arg("outputs"));
        let mut arguments = vec!["convert".to_owned(), "--save-path".into(), target];
        if !given.contains(&"--model-path") {
            arguments.extend(["--model-path".into(), model]);
        }
        arguments.extend(defaults.map(|word| (*word).to_owned()));
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments
    }

    /// Everything in it, hidden files too, but the model.
    pub fn contents(&self) -> Vec<String> {
        let mut names = names(self.folder.path());
        names.retain(|name| name != "model");
        names
    }
}

/// Names of the files in a folder.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The models and texts of the repository.
pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// Folders with config.json files of real models, and nothing else.
pub fn configs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/configs")
}

/// Writes a file of token ids.
pub fn write_ids(path: &Path, ids: &[i64], shape: [usize; 2]) {
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, shape.to_vec(), &bytes).unwrap();
    std::fs::write(path, safetensors::serialize([("input_ids", view)], None).unwrap()).unwrap();
}

/// A template that lets the embedded model go on.
pub const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\
                        {% else %}{{ message.content.strip() }}\n{% endif %}{% endfor %}";

/// The embedded model with a chat template.
pub fn chatting(place: &Workplace) -> String {
    std::fs::write(place.path("model/chat_template.jinja"), CHAT_TEMPLATE).unwrap();
    let tokens = r#"{"bos_token": "<s>", "eos_token": "</s>"}"#;
    std::fs::write(place.path("model/tokenizer_config.json"), tokens).unwrap();
    place.arg("model")
}
