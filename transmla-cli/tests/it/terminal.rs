//! What is seen on a terminal, by `script`, which every Linux has.

use std::io::{Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::{Workplace, chatting, command};

/// A command on a terminal of 80 columns.
struct Terminal {
    child: Child,
    keys: Option<ChildStdin>,
    seen: Arc<Mutex<String>>,
    reader: std::thread::JoinHandle<()>,
}

impl Terminal {
    /// Starts with SIGINT not ignored, as it is in tests that a script runs in the background.
    fn start(arguments: &[String]) -> Self {
        let quoted: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
        let line = format!(
            "stty cols 80; exec env --default-signal=INT '{}' {}",
            env!("CARGO_BIN_EXE_transmla"),
            quoted.join(" ")
        );
        let mut script = Command::new("script");
        // The environment that the other tests have.
        for (name, value) in command().get_envs() {
            match value {
                Some(value) => script.env(name, value),
                None => script.env_remove(name),
            };
        }
        let mut child = script
            .args(["-qec", &line, "/dev/null"])
            .env_remove("COLUMNS")
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = child.stdout.take().unwrap();
        let seen = Arc::new(Mutex::new(String::new()));
        let into = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            let mut part = [0; 4096];
            while let Ok(read @ 1..) = output.read(&mut part) {
                bytes.extend_from_slice(&part[..read]);
                *into.lock().unwrap() = String::from_utf8_lossy(&bytes).into_owned();
            }
        });
        Self {
            keys: child.stdin.take(),
            child,
            seen,
            reader,
        }
    }

    fn press(&mut self, keys: &str) {
        let to = self.keys.as_mut().unwrap();
        to.write_all(keys.as_bytes()).unwrap();
        to.flush().unwrap();
    }

    /// Waits until something is seen behind what was seen before; gives how much was seen then.
    #[track_caller]
    fn wait_for(&mut self, words: &str, from: usize) -> usize {
        let started = Instant::now();
        loop {
            let seen = self.seen.lock().unwrap().clone();
            if let Some(at) = seen.get(from..).and_then(|rest| rest.find(words)) {
                return from + at + words.len();
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no {words:?} in {seen}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The exit code and all that was seen.
    fn end(mut self) -> (Option<i32>, String) {
        let code = self.child.wait().unwrap().code();
        drop(self.keys.take());
        self.reader.join().unwrap();
        let seen = self.seen.lock().unwrap().clone();
        (code, seen)
    }
}

/// The lines that were ever on the screen, bars too, without colours.
fn lines(seen: &str) -> Vec<String> {
    let plain = console::strip_ansi_codes(seen).into_owned();
    let parts = plain.split(['\n', '\r']).map(|line| line.trim_end().to_owned());
    parts.filter(|line| !line.is_empty()).collect()
}

#[test]
fn nothing_is_wider_than_a_terminal() {
    let place = Workplace::new();
    let long = place.path("a folder with a long name/another folder with a long name");
    std::fs::create_dir_all(&long).unwrap();
    std::fs::rename(place.path("model"), long.join("the original model")).unwrap();
    let (model, saved) = (long.join("the original model"), long.join("the converted model"));
    let (model, saved) = (model.to_str().unwrap(), saved.to_str().unwrap());
    let convert = place.convert(&["--model-path", model, "--save-path", saved, "--refine", "2"]);
    // Both paths are given once.
    let convert: Vec<String> = convert[..1].iter().chain(&convert[3..]).cloned().collect();
    let words = |line: &[&str]| line.iter().map(|word| (*word).to_owned()).collect::<Vec<String>>();
    let text = ["--dataset", "stories", "--max-windows", "2", "--seqlen", "32"];
    for arguments in [
        convert,
        words(&["inspect", "--model-path", saved]),
        words(&[&["eval", "--model-path", saved, "--against", model], &text[..]].concat()),
        words(&[&["verify", "--model-path", saved, "--against", model], &text[..]].concat()),
        words(&[
            "bench",
            "--model-path",
            saved,
            "--against",
            model,
            "--context",
            "64",
            "--new-tokens",
            "2",
        ]),
        words(&[
            "generate",
            "--model-path",
            saved,
            "--prompt",
            "x",
            "--max-new-tokens",
            "4",
        ]),
        words(&[
            "sweep",
            "--model-path",
            model,
            "--budgets",
            "75%,50%,25%",
            "--refine",
            "2",
            "--freqfold",
            "1",
            "--cal-dataset",
            "stories",
            "--cal-nsamples",
            "4",
            "--cal-max-seqlen",
            "32",
            "--eval-seqlen",
            "32",
            "--eval-max-windows",
            "2",
            "--output",
            &place.arg("sweep"),
        ]),
        words(&["doctor"]),
        words(&[
            "eval",
            "--model-path",
            "/no/such/folder/anywhere/on/this/machine/at/all/but/a/long/path",
            "--dataset",
            "stories",
        ]),
    ] {
        let (_, seen) = Terminal::start(&arguments).end();
        let lines = lines(&seen);
        let wide: Vec<&String> = lines
            .iter()
            .filter(|line| console::measure_text_width(line) > 80)
            .collect();
        assert!(wide.is_empty() && !lines.is_empty(), "{arguments:?}: {wide:#?}");
    }
}

#[test]
fn a_terminal_has_colours_unless_they_are_not_wanted() {
    let line = ["inspect", "--model-path", "embedded"].map(str::to_owned);
    let (_, seen) = Terminal::start(&line).end();
    assert!(seen.starts_with("\u{1b}[1membedded\u{1b}[0m"), "{seen:?}");
    let never = [&line[..], &["--color".to_owned(), "never".to_owned()]].concat();
    let (_, seen) = Terminal::start(&never).end();
    assert!(seen.starts_with("embedded") && !seen.contains('\u{1b}'), "{seen:?}");
}

#[test]
fn bars_show_the_layer_and_no_time_before_it_is_known() {
    let place = Workplace::new();
    let arguments = place.convert(&["--refine", "300"]);
    let (code, seen) = Terminal::start(&arguments).end();
    assert_eq!(code, Some(0), "{seen}");
    let lines = lines(&seen);
    let bars: Vec<&String> = lines
        .iter()
        .filter(|line| line.contains("Factorise and write     layer "))
        .collect();
    for layer in 1..=5 {
        assert!(
            bars.iter().any(|bar| bar.contains(&format!("layer {layer}/5"))),
            "{bars:?}"
        );
    }
    // Two seconds and a layer are needed to know anything.
    assert!(
        bars.iter()
            .filter(|bar| bar.contains("layer 1/5"))
            .all(|bar| !bar.contains("left")),
        "{bars:?}"
    );
}

#[test]
fn ctrl_c_says_where_the_command_goes_on() {
    let place = Workplace::new();
    let arguments = place.convert(&["--refine", "300", "--ppl-eval-batch-size", "0"]);
    let mut terminal = Terminal::start(&arguments);
    terminal.wait_for("layer 3/5", 0);
    terminal.press("\u{3}");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(130), "{seen}");
    let last = lines(&seen).pop().unwrap();
    assert!(
        last.ends_with("interrupted; run the same command again to go on at layer 3/5"),
        "{last}"
    );
}

/// The first stops the answer, the second, at the prompt, the chat.
#[test]
fn ctrl_c_stops_an_answer_and_then_the_chat() {
    let place = Workplace::new();
    let model = chatting(&place);
    // A story without an end.
    place.set_config("max_position_embeddings", 60_000.into());
    place.set_config("eos_token_id", 0.into());
    let line = [
        "chat",
        "--model-path",
        &model,
        "--context",
        "60000",
        "--max-new-tokens",
        "30000",
    ];
    let mut terminal = Terminal::start(&line.map(str::to_owned));
    let asked = terminal.wait_for("> ", 0);
    terminal.press("Once upon a time\n");
    let answered = terminal.wait_for("a", asked + "Once upon a time".len() + 2);
    terminal.press("\u{3}");
    let again = terminal.wait_for("> ", answered);
    terminal.press("Lily\n");
    let answered = terminal.wait_for("a", again + "Lily".len() + 2);
    terminal.press("\u{3}");
    terminal.wait_for("> ", answered);
    terminal.press("\u{3}");
    let (code, seen) = terminal.end();
    assert_eq!(code, Some(130), "{seen}");
    assert_eq!(seen.matches("new token").count(), 2, "{seen}");
}
