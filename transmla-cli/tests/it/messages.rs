//! What is said beside results: how much, where, in what colours.

use crate::support::{Workplace, command, run, transmla};

fn convert(place: &Workplace, more: &[&str]) -> Vec<String> {
    let refine: &[&str] = if more.contains(&"transmla") {
        &[]
    } else {
        &["--refine", "2"]
    };
    place.convert(&[&["--force"], refine, more].concat())
}

#[test]
fn lines_for_layers_stand_where_no_bar_is_seen() {
    let place = Workplace::new();
    let ran = transmla(&convert(&place, &[]));
    for layer in 1..=5 {
        let line = format!("Factorise and write     layer {layer}/5, ");
        assert!(ran.stderr.contains(&line), "{ran:?}");
    }
    assert!(ran.stderr.contains("off the original's"), "{ran:?}");
    assert!(!ran.stderr.contains("memory so far"), "{ran:?}");
    let ran = transmla(&convert(&place, &["--method", "transmla"]));
    assert!(ran.stderr.contains("Decouple RoPE           layer 2/5, "), "{ran:?}");
    assert!(ran.stderr.contains("latent keeps "), "{ran:?}");
    ran.succeeds();
}

#[test]
fn quiet_and_verbose_may_stand_anywhere() {
    let place = Workplace::new();
    for quiet in ["-q", "--quiet"] {
        let ran = transmla(&convert(&place, &[quiet]));
        assert_eq!(ran.stderr, "");
        assert!(ran.succeeds().starts_with("Converted "));
    }
    let before = [&["--verbose".to_owned()], &convert(&place, &[])[..]].concat();
    let ran = transmla(&before);
    assert!(
        ran.stderr.contains("memory so far") && ran.stderr.contains("device auto"),
        "{ran:?}"
    );
    transmla(&["inspect", "--model-path", "embedded", "-q", "-v"]).fails(2, &["--quiet", "--verbose"]);
}

#[test]
fn a_log_file_gets_everything_with_the_time() {
    let place = Workplace::new();
    let log = place.arg("log.txt");
    let quiet = transmla(&convert(&place, &["-q", "--log-file", &log]));
    assert_eq!(quiet.stderr, "");
    let result = quiet.succeeds();
    let failed = transmla(&["inspect", "--model-path", "/no/model", "--log-file", &log]);
    let logged = std::fs::read_to_string(&log).unwrap();
    for words in [
        "transmla 0.1.0: ",
        "Plan: ",
        "layer 5/5",
        "memory so far",
        result.lines().next().unwrap(),
        failed.stderr.lines().next().unwrap(),
    ] {
        assert!(logged.contains(words), "no '{words}' in {logged}");
    }
    for line in logged.lines() {
        let (time, _) = line.split_once(' ').unwrap();
        assert!(
            time.len() == 20 && time.starts_with("20") && time.ends_with('Z'),
            "{line}"
        );
    }
    transmla(&[
        "inspect",
        "--model-path",
        "embedded",
        "--log-file",
        &place.arg("no/log"),
    ])
    .fails(1, &["cannot write --log-file", "no/log"]);
    transmla(&["inspect", "--model-path", "embedded", "--log-file", &place.arg("model")])
        .fails(1, &["cannot write --log-file", "not a regular file"]);
}

#[test]
fn colours_are_for_terminals_or_those_who_ask() {
    let line = ["inspect", "--model-path", "embedded"];
    let wrong = ["inspect", "--model-path", "/no/model"];
    let plain = transmla(&line).succeeds();
    assert!(!plain.contains('\u{1b}'));
    assert!(!transmla(&wrong).stderr.contains('\u{1b}'));
    let always = ["--color", "always"];
    let painted = transmla(&[&line[..], &always].concat()).succeeds();
    assert!(painted.starts_with("\u{1b}[1m"), "{painted:?}");
    assert_eq!(console::strip_ansi_codes(&painted), plain);
    let error = transmla(&[&wrong[..], &always].concat()).stderr;
    assert!(error.contains("\u{1b}[31m") && error.contains("error:"), "{error:?}");
    let forced = run(command().args(line).env("CLICOLOR_FORCE", "1"));
    assert_eq!(forced.succeeds(), painted);
    let never = run(command()
        .args(line)
        .args(["--color", "never"])
        .env("CLICOLOR_FORCE", "1"));
    assert_eq!(never.succeeds(), plain);
    transmla(&["inspect", "--color", "sometimes"]).fails(2, &["auto, always, never"]);
}
