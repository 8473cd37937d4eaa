//! The folder of the result holds what was there before, or a complete model.

use crate::damage::overwrite;
use crate::support::{Workplace, command, names, run, transmla};

#[test]
fn a_path_below_a_file_cannot_be_made() {
    let place = Workplace::new();
    let path = place.path("model/config.json/x");
    let words = ["cannot create --save-path", "config.json is a file, not a folder"];
    let started = std::time::Instant::now();
    transmla(&["convert", "--save-path", path.to_str().unwrap()]).fails(1, &words);
    assert!(started.elapsed().as_secs() < 5, "it fails before any work");
}

#[test]
fn an_existing_model_is_replaced_only_on_purpose() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("outputs")).unwrap();
    std::fs::write(place.path("outputs/config.json"), "old").unwrap();
    transmla(&place.convert(&[])).fails(1, &["outputs exists", "--force"]);
    assert_eq!(std::fs::read(place.path("outputs/config.json")).unwrap(), b"old");

    // A conversion that fails half-way keeps it even so.
    overwrite(
        &place.path("model"),
        "model.layers.4.mlp.down_proj.weight",
        0,
        f32::INFINITY,
    );
    transmla(&place.convert(&["--force", "--max-memory", "1MB"])).fails(1, &["layers.4.mlp.down_proj", "inf"]);
    assert_eq!(std::fs::read(place.path("outputs/config.json")).unwrap(), b"old");
    assert_eq!(
        (place.contents(), names(&place.path("outputs"))),
        (vec!["outputs".into()], vec!["config.json".into()])
    );

    overwrite(&place.path("model"), "model.layers.4.mlp.down_proj.weight", 0, 0.0);
    transmla(&place.convert(&["--force", "--quiet"])).succeeds();
    assert_eq!(place.contents(), ["outputs"]);
    assert!(names(&place.path("outputs")).contains(&"model.safetensors".to_owned()));
}

#[test]
fn what_is_no_model_is_never_replaced() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("outputs")).unwrap();
    std::fs::write(place.path("outputs/thesis.txt"), "years of work").unwrap();
    transmla(&place.convert(&["--force"])).fails(1, &["is no model", "another --save-path"]);
    assert_eq!(names(&place.path("outputs")), ["thesis.txt"]);
}

#[test]
fn the_source_is_never_replaced() {
    let place = Workplace::new();
    let before = names(&place.path("model"));
    let model = place.arg("model");
    let arguments = ["convert", "--model-path", &model, "--save-path", &model, "--force"];
    transmla(&arguments).fails(1, &["would replace the model to convert"]);
    assert_eq!(names(&place.path("model")), before);
}

/// A limit on file sizes stands in for a full disk: the signal is ignored, so that writing fails with an error.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_nothing() {
    let place = Workplace::new();
    let texts = crate::support::models().join("stories");
    let full = |more: &[&str]| {
        let mut bash = std::process::Command::new("bash");
        let limited = "trap '' XFSZ; ulimit -f 100; exec \"$0\" \"$@\"";
        bash.args(["-c", limited, env!("CARGO_BIN_EXE_transmla")]);
        // The embedded text would have to be unpacked, which the limit forbids too.
        let more = [&["--cal-dataset", texts.to_str().unwrap()], more].concat();
        run(bash.args(place.convert(&more)).env("HF_HUB_OFFLINE", "1"))
    };
    full(&[]).fails(1, &["cannot write", "model.safetensors", "too large"]);
    assert!(place.contents().is_empty(), "{:?}", place.contents());

    std::fs::create_dir(place.path("outputs")).unwrap();
    std::fs::write(place.path("outputs/config.json"), "old").unwrap();
    full(&["--force"]).fails(1, &["cannot write"]);
    assert_eq!(place.contents(), ["outputs"]);
    assert_eq!(std::fs::read(place.path("outputs/config.json")).unwrap(), b"old");
}

#[cfg(target_os = "linux")]
#[test]
fn a_result_that_cannot_be_printed_is_an_error() {
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut inspect = command();
    let child = inspect.args(["inspect", "--model-path", "embedded"]).stdout(full);
    let output = child
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap()
        .wait_with_output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr.contains("cannot write to stdout"), "{stderr}");
}

#[test]
fn a_reader_that_leaves_is_no_error() {
    let mut inspect = command();
    inspect.args(["inspect", "--model-path", "embedded"]);
    let mut child = inspect.stdout(std::process::Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}
