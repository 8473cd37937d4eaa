//! Texts that people read, kept in `tests/snapshots`.
//!
//! After an intended change `UPDATE_SNAPSHOTS=1 cargo test -p transmla-cli` writes them anew; look at the difference.

use std::path::Path;

use serde_json::Value;

use crate::support::{configs, names, transmla};

#[track_caller]
fn check(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/snapshots")
        .join(format!("{name}.txt"));
    if std::env::var_os("UPDATE_SNAPSHOTS").is_some() {
        std::fs::write(&path, text).unwrap();
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    let differing = expected
        .lines()
        .zip(text.lines())
        .find(|(expected, found)| expected != found);
    assert!(
        expected == text,
        "{} is out of date (UPDATE_SNAPSHOTS=1); first at {differing:?}",
        path.display()
    );
}

#[test]
fn help() {
    check("help", &transmla(&["--help"]).succeeds());
    for command in [
        "convert",
        "sweep",
        "heal",
        "eval",
        "verify",
        "export",
        "logits",
        "inspect",
        "generate",
        "bench",
        "chat",
        "push",
        "doctor",
        "completions",
        "man",
    ] {
        check(&format!("help-{command}"), &transmla(&[command, "--help"]).succeeds());
    }
}

#[test]
fn plan() {
    let plan = transmla(&["convert", "--dry-run"]).succeeds();
    // Estimates are not the same everywhere; that of the time may take a second line.
    let is_known = |line: &&str| !line.starts_with("  memory") && !line.starts_with("  time");
    let lines = plan.lines().filter(is_known);
    check("dry-run", &(lines.collect::<Vec<_>>().join("\n") + "\n"));
}

/// What becomes of real models at the published budgets, from their config.json alone.
#[test]
fn plans_of_real_models() {
    let mut text = String::new();
    for name in names(&configs()) {
        let model = configs().join(&name);
        for (rank, rope) in [("512", "64"), ("448", "128")] {
            let plan = [
                "convert",
                "--dry-run",
                "--kv-lora-rank",
                rank,
                "--qk-mqa-dim",
                rope,
                "--cal-dataset",
                "stories",
                "--json",
                "--model-path",
            ];
            let ran = transmla(&[&plan[..], &[model.to_str().unwrap()]].concat());
            text += &format!("{name} at {rank} + {rope}\n");
            if ran.code == Some(0) {
                text += &describe_plan(&ran.json());
            } else {
                text += &format!("  {}\n", ran.stderr.trim_end());
            }
        }
    }
    check("plans", &text);
}

fn describe_plan(plan: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap();
    let gib = |value: &Value| number(value) as f64 / f64::from(1 << 30);
    let (before, after) = (number(&plan["kv_cache"]["original"]), number(&plan["kv_cache"]["mla"]));
    let layers = number(&plan["shapes"]["num_hidden_layers"]);
    let cache = |numbers: u64| (numbers * layers * 2) as f64 / 1024.0;
    let mut text = format!(
        "  {:.2} billion numbers, {:.1} GiB read, {:.1} GiB written, about {:.1} GiB of memory\n",
        number(&plan["parameters"]) as f64 / 1e9,
        gib(&plan["source_bytes"]),
        gib(&plan["output_bytes"]),
        gib(&plan["peak_memory_estimate_bytes"]),
    );
    text += &format!(
        "  KV cache {before} -> {after} numbers per token and layer, {:.1} -> {:.1} KiB per token in bf16\n",
        cache(before),
        cache(after),
    );
    for tensor in plan["tensors"].as_array().unwrap() {
        let name = tensor["name"].as_str().unwrap();
        if let Some(name) = name.strip_prefix("model.layers.0.self_attn.") {
            text += &format!("  {name} {}\n", tensor["shape"]);
        }
    }
    text
}

#[test]
fn inspections_of_real_models() {
    let mut text = String::new();
    for name in names(&configs()) {
        let inspection = transmla(&["inspect", "--model-path", configs().join(&name).to_str().unwrap()]).succeeds();
        // The first line is the path.
        text += &format!("{name}\n{}\n", inspection.split_once('\n').unwrap().1);
    }
    check("inspections", &text);
}

#[test]
fn sweep() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("sweep.svg");
    let line = "sweep --budgets 8+28,25% --freqfold 2 --cal-nsamples 4 --cal-max-seqlen 32 --eval-seqlen 32 --eval-max-windows 2 --svg";
    let arguments: Vec<&str> = line.split(' ').chain(svg.to_str()).collect();
    let table = transmla(&arguments).succeeds();
    // Times and digits of perplexities are not the same everywhere.
    let hidden = |word: &str| match word.trim_end().split_once('.') {
        Some((_, decimals)) if decimals.len() == 4 => word.replace(|c: char| c.is_ascii_digit(), "#"),
        _ => word.to_owned(),
    };
    let lines = table.lines().map(|line| match line.split_whitespace().next() {
        Some(label @ ("time" | "peak" | "picture")) => format!("  {label} (…)"),
        _ => line.split_inclusive(' ').map(hidden).collect(),
    });
    check("sweep", &(lines.collect::<Vec<_>>().join("\n") + "\n"));
}

#[test]
fn inspection() {
    check(
        "inspect",
        &transmla(&["inspect", "--model-path", "embedded"]).succeeds(),
    );
}

#[test]
fn errors() {
    let mut text = String::new();
    for line in [
        "convert --kv-lora-rank 512 --dry-run",
        "convert --qk-mqa-dim 64 --dry-run",
        "convert --kv-budget 200% --dry-run",
        "convert --cal-dataset wikitext3",
        "convert --save-path /dev/null/x",
        "eval --model-path embedded",
        "sweep --budgets 8+28,8+512",
        "sweep --budgets 8+",
        "sweep --methods transmla --refine 100",
    ] {
        let ran = transmla(&line.split(' ').collect::<Vec<_>>());
        text += &format!(
            "$ transmla {line}\n{}[exit code {}]\n\n",
            ran.stderr,
            ran.code.unwrap_or(-1)
        );
    }
    check("errors", &text);
}
