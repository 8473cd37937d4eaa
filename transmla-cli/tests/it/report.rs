//! The page that a conversion leaves beside its model.

use std::fs;

use crate::support::{Workplace, names, transmla};

/// Ids of the parts of the page in a folder.
fn parts(page: &str) -> Vec<&str> {
    let after = |start| page.split(start).skip(1).filter_map(|rest| rest.split('"').next());
    let (figures, sections) = (after("<figure id=\""), after("<section id=\""));
    figures.chain(sections).collect()
}

#[test]
fn has_what_the_summary_has_and_more() {
    let place = Workplace::new();
    let all = ["before-after", "errors", "spectrum", "rotary", "refinement", "phases"];
    let sections = ["samples", "recipe", "layers"];
    for (more, has_refinement) in [
        (&["--refine", "3"][..], true),
        (&["--method", "transmla", "--force"], false),
    ] {
        let ran = transmla(&place.convert(more));
        let summary = ran.succeeds();
        let page = fs::read_to_string(place.path("outputs/report.html")).unwrap();
        let figures = all.iter().filter(|id| has_refinement || **id != "refinement");
        let expected: Vec<&str> = figures.chain(&sections).copied().collect();
        assert_eq!(parts(&page), expected, "{more:?}");
        // Both have the same sample, which the terminal shows up to its last sentence.
        let sample = summary.split_once("it writes").unwrap().1.split('"').nth(1).unwrap();
        let shown = sample.strip_prefix("Once upon a time").unwrap();
        let start: String = shown.chars().take(12).collect();
        assert!(
            page.contains(&format!("<b>Once upon a time</b>{start}")),
            "{start}: {page}"
        );
        assert_eq!(page.matches("<h3>Original</h3>").count(), 2);
        assert!(
            page.contains("kv-lora-rank = 28") && page.contains("4 samples of 32 tokens"),
            "{page}"
        );
        assert!(!page.contains(&place.arg("")), "{page}");
        let recipe = fs::read_to_string(place.path("outputs/transmla.toml")).unwrap();
        assert!(
            recipe.contains(&format!("\"report.html\" = {}\n", page.len())),
            "{recipe}"
        );
    }
}

#[test]
fn is_left_out_if_nobody_wants_it() {
    let place = Workplace::new();
    transmla(&place.convert(&["--no-report", "--quiet"])).succeeds();
    let without = names(&place.path("outputs"));
    assert!(!without.contains(&"report.html".to_owned()), "{without:?}");
    let weights = fs::read(place.path("outputs/model.safetensors")).unwrap();
    transmla(&place.convert(&["--json", "--force"])).json();
    let mut with = names(&place.path("outputs"));
    assert!(fs::read(place.path("outputs/model.safetensors")).unwrap() == weights);
    with.retain(|name| name != "report.html");
    assert_eq!(with, without);
}
