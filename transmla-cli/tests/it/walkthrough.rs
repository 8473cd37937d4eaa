//! docs/walkthrough.md names files and functions that are there, in at most six hops a walk.

use std::path::Path;

/// What stands in backquotes.
fn spans(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// Whether a word is a path of names, `Plan::new` or `kv_lora_rank`.
fn is_name(span: &str) -> bool {
    span.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | ':'))
}

#[test]
fn every_hop_is_in_the_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let text = std::fs::read_to_string(root.join("docs/walkthrough.md")).unwrap();
    let walks: Vec<&str> = text.split("\n## ").skip(1).collect();
    assert_eq!(walks.len(), 3);
    for walk in walks {
        let rows = walk.lines().filter(|line| line.starts_with("| `"));
        let hops: Vec<Vec<&str>> = rows.map(|row| row.trim_matches('|').split(" | ").collect()).collect();
        assert!((3..=6).contains(&hops.len()), "{walk}");
        for hop in hops {
            let [file, functions, what] = hop[..] else {
                panic!("{hop:?}");
            };
            let file = spans(file).next().unwrap();
            let source = std::fs::read_to_string(root.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
            let last = |span: &str| span.rsplit("::").next().unwrap().to_owned();
            assert!(spans(functions).count() > 0, "{hop:?}");
            for function in spans(functions) {
                let name = last(function);
                let is_there = ["(", "<"]
                    .iter()
                    .any(|next| source.contains(&format!("fn {name}{next}")));
                assert!(is_there, "{file} has no {function}");
            }
            for name in spans(what).filter(|span| is_name(span)) {
                assert!(source.contains(&last(name)), "{file} has no {name}");
            }
        }
    }
}
