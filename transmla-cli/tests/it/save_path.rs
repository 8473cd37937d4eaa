//! The folder of the result holds what was there before, or a complete model.

use crate::damage::overwrite;
use crate::support::{Workplace, command, names, run, transmla};

/// What a conversion has left there, as far as the list of its files goes.
fn put_old_model(place: &Workplace) {
    std::fs::create_dir(place.path("outputs")).unwrap();
    std::fs::write(place.path("outputs/config.json"), "old").unwrap();
    std::fs::write(place.path("outputs/transmla.toml"), "[files]\n\"config.json\" = 3\n").unwrap();
}

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
    put_old_model(&place);
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
        (
            vec!["outputs".into()],
            vec!["config.json".into(), "transmla.toml".into()]
        )
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
    transmla(&place.convert(&["--force"])).fails(1, &["--force does not replace", "thesis.txt", "another folder"]);
    assert_eq!(names(&place.path("outputs")), ["thesis.txt"]);
}

/// A folder with a model in it may hold more than a model, and a model may not be of this program's making.
#[test]
fn what_no_conversion_has_written_is_never_replaced() {
    let place = Workplace::new();
    transmla(&place.convert(&[])).succeeds();
    let output = |name: &str| place.path(&format!("outputs/{name}"));
    let before = names(&place.path("outputs"));
    let refused = |word: &str| transmla(&place.convert(&["--force"])).fails(1, &["--force does not replace", word]);
    // A training folder, a note, another conversion's file, an edited card, and a folder instead of a file.
    std::fs::create_dir_all(output("checkpoint-1000")).unwrap();
    std::fs::write(output("checkpoint-1000/optimizer.pt"), "state").unwrap();
    refused("checkpoint-1000");
    std::fs::remove_dir_all(output("checkpoint-1000")).unwrap();
    for name in ["notes.txt", "model.gguf", "model-00001-of-00002.safetensors", ".git"] {
        std::fs::write(output(name), "mine").unwrap();
        refused(name);
        std::fs::remove_file(output(name)).unwrap();
    }
    let card = std::fs::read(output("README.md")).unwrap();
    std::fs::write(output("README.md"), [&card[..], b"And I found out more."].concat()).unwrap();
    refused("README.md");
    std::fs::remove_file(output("README.md")).unwrap();
    std::fs::create_dir(output("README.md")).unwrap();
    refused("README.md");
    std::fs::remove_dir(output("README.md")).unwrap();
    std::fs::write(output("README.md"), card).unwrap();
    assert_eq!(names(&place.path("outputs")), before);
    transmla(&place.convert(&["--force"])).succeeds();
    // Somebody's own model, even with a recipe of theirs beside it.
    let copy = place.path("copy");
    std::fs::rename(place.path("outputs"), &copy).unwrap();
    let model = place.path("model");
    std::fs::create_dir(place.path("outputs")).unwrap();
    for name in names(&model) {
        std::fs::copy(model.join(&name), output(&name)).unwrap();
    }
    refused("no transmla.toml");
    std::fs::write(output("transmla.toml"), "model-path = 'm'").unwrap();
    refused("not that of a converted model");
}

/// What a model is made from is outside of what is replaced by it.
#[test]
fn inputs_are_outside_of_the_save_path() {
    let place = Workplace::new();
    transmla(&place.convert(&["--ppl-eval-batch-size", "0"])).succeeds();
    let before = names(&place.path("outputs"));
    let text = place.path("outputs/words.txt");
    std::fs::write(&text, "once upon a time there was a text\n\n".repeat(200)).unwrap();
    let text = text.to_str().unwrap();
    for (option, words) in [
        ("--cal-dataset", "the calibration text"),
        ("--eval-dataset", "the evaluation text"),
    ] {
        transmla(&place.convert(&["--force", option, text])).fails(1, &["would replace", words, "words.txt"]);
    }
    std::fs::remove_file(text).unwrap();
    let ids = place.path("outputs/ids.safetensors");
    crate::support::write_ids(&ids, &[1; 64], [2, 32]);
    let ids = ids.to_str().unwrap();
    transmla(&place.convert(&["--force", "--cal-tokens", ids])).fails(1, &["ids.safetensors"]);
    std::fs::remove_file(ids).unwrap();
    let recipe = place.arg("outputs/transmla.toml");
    transmla(&place.convert(&["--force", "--recipe", &recipe])).fails(1, &["would replace the recipe"]);
    assert_eq!(names(&place.path("outputs")), before);
}

#[cfg(target_os = "linux")]
#[test]
fn a_folder_that_nobody_can_write_to_is_found_before_any_work() {
    let place = Workplace::new();
    for more in [&[][..], &["--dry-run"]] {
        let arguments = [&["--save-path", "/proc/transmla/model"], more].concat();
        let mut convert = place.convert(&arguments);
        // The last one counts.
        convert.retain(|word| word != &place.arg("outputs"));
        convert.remove(1);
        transmla(&convert).fails(1, &["cannot create --save-path", "cannot be written to"]);
    }
}

/// A shell command in a namespace of its own, where things can be mounted; nothing if this system has no such thing.
#[cfg(target_os = "linux")]
fn in_namespace(script: &str, arguments: &[String]) -> Option<crate::support::Ran> {
    let can = std::process::Command::new("unshare").args(["-rm", "true"]).status();
    if !can.is_ok_and(|status| status.success()) {
        eprintln!("this system has no namespaces for everybody: not tested");
        return None;
    }
    let mut shell = std::process::Command::new("unshare");
    shell.args(["-rm", "bash", "-c", script, env!("CARGO_BIN_EXE_transmla")]);
    Some(run(shell.args(arguments).env("HF_HUB_OFFLINE", "1")))
}

#[cfg(target_os = "linux")]
#[test]
fn a_disk_without_room_is_found_before_any_work() {
    let place = Workplace::new();
    std::fs::create_dir(place.path("disk")).unwrap();
    let disk = place.arg("disk");
    let convert = |more: &[&str]| {
        let target = format!("{disk}/outputs");
        let arguments = place.convert(more).into_iter();
        arguments
            .map(|word| {
                if word == place.arg("outputs") {
                    target.clone()
                } else {
                    word
                }
            })
            .collect::<Vec<_>>()
    };
    let script = format!(r#"mount -t tmpfs -o size=300k none "{disk}" && exec "$0" "$@""#);
    let Some(ran) = in_namespace(&script, &convert(&[])) else {
        return;
    };
    assert!(!ran.stderr.contains("Calibration text"), "{}", ran.stderr);
    ran.fails(
        1,
        &["has room for 0.3 MiB", "the conversion needs", "choose another folder"],
    );
    // A dry run says so and shows the plan.
    let ran = in_namespace(&script, &convert(&["--dry-run"])).unwrap();
    assert!(
        ran.stderr.contains("warning:") && ran.stderr.contains("has room for"),
        "{}",
        ran.stderr
    );
    assert!(ran.succeeds().contains("Plan:"));
}

/// A mount point cannot be renamed: the model is written into it.
#[cfg(target_os = "linux")]
#[test]
fn a_mount_point_may_be_the_save_path() {
    let place = Workplace::new();
    let outputs = place.arg("outputs");
    std::fs::create_dir(&outputs).unwrap();
    let script = format!(
        r#"mount -t tmpfs -o size=64m none "{outputs}" && "$0" "$@" && "$0" "$@" && ls -A "{outputs}" \
           && touch "{outputs}/mine" && ! "$0" "$@" && ls "{outputs}/mine""#
    );
    let arguments = place.convert(&["--force", "--quiet", "--json", "--refine", "2"]);
    let Some(ran) = in_namespace(&script, &arguments) else {
        return;
    };
    assert_eq!(ran.code, Some(0), "{ran:?}");
    let listed: Vec<&str> = ran
        .stdout
        .lines()
        .filter(|line| !line.starts_with([' ', '{', '}']))
        .collect();
    let expected = [
        "LICENSE",
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "transmla.toml",
    ];
    for name in expected {
        assert!(listed.contains(&name), "{listed:?}");
    }
    assert!(!listed.iter().any(|name| name.starts_with('.')), "{listed:?}");
    assert!(
        listed.last().unwrap().ends_with("/mine") && ran.stderr.contains("also has mine"),
        "{ran:?}"
    );
    assert_eq!(place.contents(), ["outputs"]);
    assert!(names(&place.path("outputs")).is_empty());
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

/// A model whose folder is named by a path through itself is replaced as any other; one behind a link stays as it is.
#[cfg(unix)]
#[test]
fn a_model_is_not_lost_by_the_path_it_goes_by() {
    let place = Workplace::new();
    transmla(&place.convert(&["--quiet"])).succeeds();
    let before = names(&place.path("outputs"));
    let renamed = |target: &str| {
        let arguments = place.convert(&["--force", "--quiet"]).into_iter();
        let arguments = arguments.map(|word| match word == place.arg("outputs") {
            true => target.to_owned(),
            false => word,
        });
        run(command().args(arguments).current_dir(place.path("")))
    };
    for target in ["outputs/../outputs", "./outputs/.", "model/../outputs"] {
        renamed(target).succeeds();
        assert_eq!(place.contents(), ["outputs"], "{target}");
        assert_eq!(names(&place.path("outputs")), before, "{target}");
    }
    std::os::unix::fs::symlink("outputs", place.path("link")).unwrap();
    for target in ["link", "link/"] {
        renamed(target).fails(1, &["is a link to", "outputs", "--save-path"]);
    }
    assert!(place.path("link").symlink_metadata().unwrap().is_symlink());
    assert_eq!(names(&place.path("outputs")), before);
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

    put_old_model(&place);
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
