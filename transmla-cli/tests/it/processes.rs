//! Processes that are ended by signals, and several at one place.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::{Workplace, command, names, transmla};

/// Starts the binary with a folder for temporary files of its own, `tmp` in the workplace, and with no signal ignored: tests
/// that run in the background of a script have SIGINT ignored, and the binary would let that be.
fn start(place: &Workplace, arguments: &[String]) -> Child {
    let mut fresh = match cfg!(target_os = "linux") {
        true => {
            let mut env = Command::new("env");
            env.args(["--default-signal=INT,TERM,HUP", env!("CARGO_BIN_EXE_transmla")]);
            env
        }
        false => command(),
    };
    fresh.env("HF_HUB_OFFLINE", "1");
    start_as(place, fresh, arguments)
}

fn start_as(place: &Workplace, mut command: Command, arguments: &[String]) -> Child {
    std::fs::create_dir_all(place.path("tmp")).unwrap();
    command
        .args(arguments)
        .env("TMPDIR", place.path("tmp"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits until something is there, or the process has ended before.
#[track_caller]
fn wait_for(path: &Path, child: &mut Child) {
    let started = Instant::now();
    while !path.exists() {
        assert!(
            child.try_wait().unwrap().is_none(),
            "it has ended before {}",
            path.display()
        );
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{} has not come",
            path.display()
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn signal(child: &Child, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &child.id().to_string()])
        .status();
    assert!(sent.unwrap().success());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The solved layers in the resume cache.
fn layers(place: &Workplace) -> Vec<String> {
    let mut found = names(&place.path(".outputs.layers"));
    found.retain(|name| name.starts_with("layer-"));
    found
}

/// A conversion that takes its time in every layer.
fn slow(place: &Workplace, more: &[&str]) -> Vec<String> {
    place.convert(&[&["--refine", "300", "--ppl-eval-batch-size", "0"], more].concat())
}

#[test]
fn a_signal_clears_what_is_unfinished_and_keeps_what_was_refined() {
    for (name, code) in [("INT", 130), ("TERM", 143), ("HUP", 129)] {
        let place = Workplace::new();
        let embedded = slow(&place, &["--model-path", "embedded"]);
        let mut child = start(&place, &embedded);
        wait_for(&place.path(".outputs.layers/layer-00001"), &mut child);
        assert!(!names(&place.path("tmp")).is_empty(), "the model is unpacked there");
        let sent = Instant::now();
        signal(&child, name);
        let output = child.wait_with_output().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(5));
        let said = text(&output);
        assert_eq!(output.status.code(), Some(code), "{said}");
        assert!(
            said.contains("interrupted; run the same command again to go on at layer "),
            "{said}"
        );
        assert!(!said.contains("panicked") && !said.contains("error:"), "{said}");
        assert_eq!(place.contents(), [".outputs.layers", "tmp"], "{name}");
        assert!(names(&place.path("tmp")).is_empty(), "{name}");
        let kept = layers(&place);
        let layer = next_layer(&said);
        // The signal may have come when a layer was kept and that was not said yet.
        assert!([layer, layer + 1].contains(&(kept.len() + 1)), "{layer} {kept:?}");

        let output = start(&place, &embedded).wait_with_output().unwrap();
        let said = text(&output);
        assert_eq!(output.status.code(), Some(0), "{said}");
        assert!(
            said.contains(&format!("of an earlier run: {} layer", kept.len())),
            "{said}"
        );
        assert_eq!(next_layer(&said), kept.len() + 1, "{said}");
        assert_eq!(place.contents(), ["outputs", "tmp"]);
    }
}

/// The number of `… at layer N/5`, the first that is said.
fn next_layer(said: &str) -> usize {
    let behind = said
        .split_once("go on at layer ")
        .or_else(|| said.split_once("goes on at layer "));
    let (number, _) = behind
        .unwrap_or_else(|| panic!("no layer in {said}"))
        .1
        .split_once("/5")
        .unwrap();
    number.parse().unwrap()
}

/// Killed outright again and again, each time a little later, until a run comes to its end: what it writes is what a run writes that
/// was never killed.
#[test]
fn what_is_killed_again_and_again_ends_in_the_same_files() {
    for more in [&["--refine", "20"][..], &["--refine", "0"], &["--method", "transmla"]] {
        let arguments = [
            &["--cal-nsamples", "32", "--ppl-eval-batch-size", "0", "--no-report"][..],
            more,
        ]
        .concat();
        let whole = Workplace::new();
        assert_eq!(
            start(&whole, &whole.convert(&arguments)).wait().unwrap().code(),
            Some(0)
        );
        let place = Workplace::new();
        let mut kills = 0u32;
        let mut patience = Duration::from_millis(100);
        loop {
            let mut child = start(&place, &place.convert(&arguments));
            let started = Instant::now();
            while started.elapsed() < patience && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(5));
            }
            // Where the model stands a run has come to its end but for saying so.
            if child.try_wait().unwrap().is_some() || place.path("outputs").exists() {
                let output = child.wait_with_output().unwrap();
                assert_eq!(output.status.code(), Some(0), "{}", text(&output));
                break;
            }
            child.kill().unwrap();
            child.wait().unwrap();
            kills += 1;
            patience += Duration::from_millis(150);
        }
        assert!(kills > 0, "{more:?}");
        let contents = |place: &Workplace| -> Vec<Vec<u8>> {
            let folder = place.path("outputs");
            names(&folder)
                .iter()
                .map(|name| std::fs::read(folder.join(name)).unwrap())
                .collect()
        };
        assert_eq!(names(&place.path("outputs")), names(&whole.path("outputs")));
        assert!(contents(&place) == contents(&whole), "{more:?}, {kills} kills");
        assert_eq!(place.contents(), ["outputs", "tmp"]);
    }
}

/// A run that goes on says so before it evaluates anything, and what it would take over counts should it be ended too.
#[test]
fn layers_that_will_be_taken_over_count_from_the_start() {
    let place = Workplace::new();
    let arguments = slow(&place, &[]);
    let mut child = start(&place, &arguments);
    wait_for(&place.path(".outputs.layers/layer-00002"), &mut child);
    signal(&child, "INT");
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    let kept = layers(&place).len();

    let mut child = start(&place, &arguments);
    let mut stderr = BufReader::new(child.stderr.take().unwrap());
    let mut said = String::new();
    while !said.contains("goes on at layer") {
        assert!(stderr.read_line(&mut said).unwrap() > 0, "{said}");
    }
    assert_eq!(next_layer(&said), kept + 1);
    assert!(!said.contains("Take gradients"), "{said}");
    signal(&child, "INT");
    let mut rest = String::new();
    stderr.read_to_string(&mut rest).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted; run the same command again"), "{rest}");
    assert!(next_layer(&rest) > kept, "{rest}");
}

/// Layers of other options are of no use to a run, and to no other once the run has replaced the first of them.
#[test]
fn layers_of_other_options_are_removed_once_nothing_can_use_them() {
    let place = Workplace::new();
    let mut child = start(&place, &slow(&place, &[]));
    wait_for(&place.path(".outputs.layers/layer-00002"), &mut child);
    signal(&child, "INT");
    child.wait_with_output().unwrap();
    let other = slow(&place, &["--kv-lora-rank", "20"]);
    let child = start(&place, &other);
    let started = Instant::now();
    while place.path(".outputs.layers/layer-00002").exists() {
        assert!(started.elapsed() < Duration::from_secs(120));
        std::thread::sleep(Duration::from_millis(5));
    }
    signal(&child, "INT");
    let said = text(&child.wait_with_output().unwrap());
    assert!(said.contains("follow from other weights, text or options"), "{said}");
    assert_eq!(next_layer(said.rsplit_once("interrupted").unwrap().1), 2, "{said}");
    assert_eq!(layers(&place), ["layer-00000"]);
}

/// Nothing but what the same command can go on with.
#[test]
fn a_signal_at_the_start_leaves_no_model() {
    let place = Workplace::new();
    let mut child = start(
        &place,
        &place.convert(&["--refine", "30000", "--ppl-eval-batch-size", "0"]),
    );
    wait_for(&place.path(".outputs.layers.lock"), &mut child);
    signal(&child, "TERM");
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(143), "{said}");
    assert!(said.contains("interrupted") && !said.contains("layer 0"), "{said}");
    // Gradients may have been taken by then.
    match said.contains("run the same command again") {
        true => assert_eq!(place.contents(), [".outputs.layers", "tmp"], "{said}"),
        false => assert!(!place.path(".outputs.layers/layer-00000").exists(), "{said}"),
    }
}

/// `nohup` starts a program with SIGHUP ignored, and so it stays.
#[cfg(target_os = "linux")]
#[test]
fn a_signal_that_is_ignored_stays_ignored() {
    let place = Workplace::new();
    let mut shell = Command::new("bash");
    shell.args(["-c", "trap '' HUP; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_transmla")]);
    let mut child = start_as(&place, shell, &slow(&place, &[]));
    wait_for(&place.path(".outputs.layers/layer-00000"), &mut child);
    signal(&child, "HUP");
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(place.contents(), ["outputs", "tmp"]);
}

#[test]
fn a_second_conversion_to_the_same_place_is_refused_before_any_work() {
    let place = Workplace::new();
    let mut first = start(&place, &slow(&place, &[]));
    wait_for(&place.path(".outputs.layers/layer-00000"), &mut first);
    let id = first.id().to_string();
    for more in [&[][..], &["--force"], &["--refine", "0"], &["--method", "transmla"]] {
        let ran = transmla(&place.convert(more));
        assert!(!ran.stderr.contains("Calibration text"), "{}", ran.stderr);
        ran.fails(1, &["another process", &id, "outputs", "wait until it has ended"]);
    }
    let output = first.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert_eq!(place.contents(), ["outputs", "tmp"]);
    transmla(&["inspect", "--model-path", &place.arg("outputs")]).succeeds();
}

/// Of many conversions to one place one succeeds, and its model is whole.
#[test]
fn of_many_conversions_to_one_place_one_succeeds() {
    let place = Workplace::new();
    let children: Vec<Child> = (0..6)
        .map(|_| {
            start(
                &place,
                &place.convert(&["--refine", "20", "--ppl-eval-batch-size", "0"]),
            )
        })
        .collect();
    let outputs: Vec<Output> = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap())
        .collect();
    let done = outputs.iter().filter(|output| output.status.success()).count();
    assert_eq!(done, 1);
    for output in outputs.iter().filter(|output| !output.status.success()) {
        let said = text(output);
        let reasons = ["another process", "outputs exists", "already exists"];
        assert!(reasons.iter().any(|reason| said.contains(reason)), "{said}");
    }
    assert_eq!(place.contents(), ["outputs", "tmp"]);
    transmla(&["inspect", "--model-path", &place.arg("outputs")]).succeeds();
}

#[test]
fn exports_to_one_file_at_once_are_each_whole() {
    let place = Workplace::new();
    transmla(&place.convert(&["--dtype", "fp32", "--ppl-eval-batch-size", "0"])).succeeds();
    let model = place.arg("outputs");
    let export = |output: &str| {
        let words = ["export", "--force", "-q", "--model-path", &model, "--output", output];
        words.map(str::to_owned)
    };
    transmla(&export(&place.arg("alone.gguf"))).succeeds();
    let together = place.arg("m.gguf");
    let children: Vec<Child> = (0..6).map(|_| start(&place, &export(&together))).collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
    let read = |name: &str| std::fs::read(place.path(name)).unwrap();
    assert!(read("m.gguf") == read("alone.gguf"));
    assert_eq!(place.contents(), ["alone.gguf", "m.gguf", "outputs", "tmp"]);
}

/// A file that another program cuts short or overwrites while it is converted ends the conversion with its name.
#[test]
fn a_source_that_is_cut_short_is_an_error() {
    let place = Workplace::new();
    let arguments = slow(&place, &["--max-memory", "1MB"]);
    let mut child = start(&place, &arguments);
    wait_for(&place.path(".outputs.layers/layer-00000"), &mut child);
    let weights = std::fs::File::options()
        .write(true)
        .open(place.path("model/model.safetensors"));
    weights.unwrap().set_len(4096).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("model.safetensors has changed since it was opened"),
        "{said}"
    );
    assert!(!place.path("outputs").exists());
    let left = place.contents();
    assert!(
        left.iter()
            .all(|name| !name.contains("partial") && !name.contains("lock")),
        "{left:?}"
    );
}
