//! docs/reliability.md names tests that are there.

use std::path::Path;

/// What stands in backquotes.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_test_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/reliability.md")).unwrap();
    let mut found = 0;
    for row in text.lines().filter(|line| line.starts_with("| ")) {
        let tests = row.split(" | ").nth(1).unwrap_or_default();
        let mut source = String::new();
        for span in spans(tests).filter(|span| !span.starts_with("cargo ")) {
            let name = match span.split_once(".rs") {
                Some((path, name)) => {
                    let path = root.join(format!("{path}.rs"));
                    source = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{span}: {error}"));
                    name
                }
                None => span,
            };
            // `*` stands for all of a module.
            let name = name.rsplit("::").next().unwrap_or_default();
            if !matches!(name, "" | "*") {
                assert!(source.contains(&format!("fn {name}(")), "{span}");
            }
            found += 1;
        }
    }
    assert!(found > 50, "{found} tests are named");
}
