//! The program of the README is the example, and it runs.

use std::path::Path;
use std::process::Command;

#[test]
fn the_program_of_the_readme_runs() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let program = std::fs::read_to_string(root.join("examples/continue_text.rs")).unwrap();
    let readme = std::fs::read_to_string(root.join("README.md")).unwrap();
    assert!(
        readme.contains(&program),
        "README.md and examples/continue_text.rs differ"
    );
    // Beside the folder of the tests.
    let built = std::env::current_exe().unwrap();
    let built = built.ancestors().nth(2).unwrap().join("examples/continue_text");
    let output = Command::new(built)
        .arg(root.join("../transmla-cli/models/stories260k"))
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.lines().count() == 17, "{text}");
}
