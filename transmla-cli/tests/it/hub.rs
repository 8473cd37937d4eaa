//! Models of the hub, from a cache laid out as its clients lay it out.

use crate::support::{Workplace, command, run};

#[test]
fn a_cached_model_is_used_offline() {
    let place = Workplace::new();
    let root = place.path("hub/models--org--tiny");
    std::fs::create_dir_all(root.join("refs")).unwrap();
    std::fs::create_dir_all(root.join("snapshots")).unwrap();
    std::fs::write(root.join("refs/main"), "abc123").unwrap();
    std::fs::rename(place.path("model"), root.join("snapshots/abc123")).unwrap();
    let inspect = |revision: &str, variable: &str, value: String| {
        let arguments = ["inspect", "--model-path", "org/tiny", "--revision", revision];
        run(command().args(arguments).env(variable, value))
    };
    assert!(
        inspect("main", "HF_HUB_CACHE", place.arg("hub"))
            .succeeds()
            .contains("llama")
    );
    assert!(inspect("abc123", "HF_HOME", place.arg("")).succeeds().contains("llama"));
    let words = ["org/tiny", "revision v2", "HF_HUB_OFFLINE"];
    inspect("v2", "HF_HUB_CACHE", place.arg("hub")).fails(1, &words);
}

#[test]
fn a_hub_that_cannot_be_reached_is_named() {
    let arguments = ["inspect", "--model-path", "org/tiny"];
    let place = Workplace::new();
    let mut command = command();
    command.args(arguments).env("HF_HUB_CACHE", place.arg("hub"));
    // Nothing listens on port 9 here.
    command
        .env("HF_HUB_OFFLINE", "0")
        .env("HF_ENDPOINT", "http://127.0.0.1:9");
    run(&mut command).fails(1, &["org/tiny", "check the network"]);
}
