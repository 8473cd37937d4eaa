//! Chats: the model's template, a cache that goes on, and what a prompt may come from.

use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use crate::support::{Workplace, command, transmla};

const TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{% if message.role == 'system' %}{{ message.content }}\n\
                        {% else %}{{ message.content.strip() }}\n{% endif %}{% endfor %}";

/// The embedded model with a chat template.
fn chatting(place: &Workplace) -> String {
    std::fs::write(place.path("model/chat_template.jinja"), TEMPLATE).unwrap();
    let tokens = r#"{"bos_token": "<s>", "eos_token": "</s>"}"#;
    std::fs::write(place.path("model/tokenizer_config.json"), tokens).unwrap();
    place.arg("model")
}

/// What the command answers to some lines of input: stdout, stderr, whether it succeeded.
fn with_input(arguments: &[&str], input: &str) -> (String, String, bool) {
    let mut child = command()
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (text(output.stdout), text(output.stderr), output.status.success())
}

#[test]
fn a_chat_goes_on_with_its_cache_and_answers_as_from_the_start() {
    let place = Workplace::new();
    let model = chatting(&place);
    let chat = |input: &str| {
        let line = [
            "chat",
            "--model-path",
            &model,
            "--max-new-tokens",
            "12",
            "--context",
            "256",
        ];
        let (stdout, stderr, succeeded) = with_input(&line, input);
        assert!(succeeded, "{stderr}");
        (stdout, stderr)
    };
    let (both, notes) = chat("Once upon a time\nLily was sad\n");
    let (first, _) = chat("Once upon a time\n");
    assert!(
        both.starts_with(&first) && both.len() > first.len(),
        "{both:?} {first:?}"
    );
    // The same history as one prompt, from an empty cache.
    let history = format!("<s>Once upon a time\n{}\nLily was sad\n", first.trim());
    let (whole, _, _) = with_input(
        &[
            "generate",
            "--model-path",
            &model,
            "--max-new-tokens",
            "12",
            "-q",
            "--chat",
            "--prompt",
            "-",
        ],
        history.strip_prefix("<s>").unwrap(),
    );
    assert_eq!(both[first.len()..], whole);
    // The second prompt is what is new alone: fewer tokens than the first exchange had.
    let prompts: Vec<usize> = notes
        .lines()
        .filter_map(|line| line.split("prompt of ").nth(1)?.split(' ').next()?.parse().ok())
        .collect();
    assert_eq!(prompts.len(), 2, "{notes}");
    assert!(prompts[1] < 12, "{notes}");
    // What is forgotten is not answered to.
    let (again, _) = chat("Lily was sad\n/clear\n\nOnce upon a time\n/exit\nnever\n");
    assert!(again.ends_with(&first), "{again:?} {first:?}");
}

#[test]
fn a_prompt_comes_from_an_option_a_file_or_standard_input() {
    let place = Workplace::new();
    let file = place.path("prompt.txt");
    std::fs::write(&file, "Once upon a time").unwrap();
    let generate = |more: &[&str], input: &str| {
        let line = [
            &["generate", "--model-path", "embedded", "--max-new-tokens", "8", "-q"],
            more,
        ]
        .concat();
        let (stdout, stderr, succeeded) = with_input(&line, input);
        assert!(succeeded, "{stderr}");
        stdout
    };
    let expected = generate(&["--prompt", "Once upon a time"], "");
    assert!(expected.starts_with("Once upon a time,"), "{expected}");
    assert_eq!(generate(&["--prompt-file", file.to_str().unwrap()], ""), expected);
    assert_eq!(generate(&[], "Once upon a time"), expected);
    assert_eq!(generate(&["--prompt", "-"], "Once upon a time"), expected);
    // As `echo` writes it.
    assert_eq!(generate(&[], "Once upon a time\n"), expected);
    assert_eq!(generate(&[], "Once upon a time\r\n"), expected);
    // One token to choose from is the most likely one, whatever the temperature.
    let narrow = ["--prompt", "Once upon a time", "--temperature", "2"];
    for filter in [["--top-k", "1"], ["--min-p", "1"]] {
        assert_eq!(generate(&[&narrow[..], &filter].concat(), ""), expected);
    }
    // All tokens are no filter.
    assert_eq!(
        generate(&["--prompt", "Once upon a time", "--top-k", "0"], ""),
        expected
    );
    // A filter without a temperature draws.
    let drawn = |seed: &str| generate(&["--prompt", "Once upon a time", "--top-p", "0.99", "--seed", seed], "");
    assert!((1..9).any(|seed| drawn(&seed.to_string()) != expected));
    let penalised = generate(&["--prompt", "Once upon a time", "--repetition-penalty", "1000"], "");
    assert_ne!(penalised, expected);
}

#[test]
fn what_cannot_be_chatted_with_says_why() {
    let line = ["chat", "--model-path", "embedded"];
    transmla(&line).fails(1, &["no chat template", "generate --prompt"]);
    let place = Workplace::new();
    let model = chatting(&place);
    let template = Path::new(&model).join("chat_template.jinja");
    std::fs::write(&template, "{{ raise_exception('Only on Sundays') }}").unwrap();
    let line = ["generate", "--model-path", &model, "--chat", "--prompt", "x"];
    transmla(&line).fails(1, &["chat_template.jinja", "Only on Sundays"]);
    std::fs::write(&template, TEMPLATE).unwrap();
    let (_, stderr, succeeded) = with_input(
        &["chat", "--model-path", &model, "--context", "8"],
        "Once upon a time\n",
    );
    assert!(!succeeded && stderr.contains("context of 8"), "{stderr}");
    // The model ends a text behind its end.
    std::fs::write(Path::new(&model).join("generation_config.json"), "[]").unwrap();
    let line = [
        "generate",
        "--model-path",
        &model,
        "--prompt",
        "x",
        "--max-new-tokens",
        "2",
    ];
    transmla(&[&line[..], &["--chat"]].concat()).fails(1, &["generation_config.json", "expected an object"]);
    let ran = transmla(&line);
    assert!(
        ran.stderr.contains("generation_config.json: expected an object"),
        "{ran:?}"
    );
    ran.succeeds();
}
