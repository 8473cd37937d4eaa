//! What a new user types first and gets wrong, and what is said to it.

use crate::support::{Workplace, transmla};

#[test]
fn manual_pages_have_every_command() {
    let place = Workplace::new();
    transmla(&["man", "--output", &place.arg("man/man1")]).succeeds();
    let pages = crate::support::names(&place.path("man/man1"));
    assert!(pages.contains(&"transmla.1".to_owned()), "{pages:?}");
    let help = transmla(&["--help"]).succeeds();
    for command in ["convert", "sweep", "doctor", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(pages.contains(&format!("transmla-{command}.1")), "{pages:?}");
    }
    let page = std::fs::read_to_string(place.path("man/man1/transmla-convert.1")).unwrap();
    assert!(page.contains("kv\\-lora\\-rank") && page.starts_with(".ie"), "{page}");
    // Written again, over those that are there; not over a file in the folder's place.
    transmla(&["man", "--output", &place.arg("man/man1")]).succeeds();
    transmla(&["man", "--output", &place.arg("man/man1/transmla.1")])
        .fails(1, &["cannot write manual pages", "transmla.1"]);
}

#[test]
fn a_file_or_an_address_in_place_of_a_model() {
    let place = Workplace::new();
    let (weights, folder) = (place.arg("model/model.safetensors"), place.arg("model"));
    for command in ["inspect", "convert"] {
        let given = |model: &str| transmla(&[command, "--model-path", model]);
        given(&weights).fails(
            2,
            &["it is a file", &format!("pass the folder that it is in: {folder}")],
        );
        given("model.gguf").fails(2, &["GGUF", "llama.cpp"]);
        given("https://huggingface.co/org/model").fails(2, &["a web address", "--model-path org/model"]);
        given("https://huggingface.co/org/model/tree/v2").fails(2, &["--model-path org/model --revision v2"]);
    }
    transmla(&[
        "eval",
        "--model-path",
        &folder,
        "--dataset",
        "stories",
        "--against",
        &weights,
    ])
    .fails(2, &["it is a file"]);
}

#[test]
fn help_by_any_name() {
    let long = transmla(&["convert", "--help"]).succeeds();
    assert_eq!(transmla(&["help", "convert"]).succeeds(), long);
    assert_eq!(transmla(&["help"]).succeeds(), transmla(&["--help"]).succeeds());
}
