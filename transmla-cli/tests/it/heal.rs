//! `transmla heal`: from a converted model and its original to a model that predicts more as the original does.

use std::fs;

use serde_json::Value;

use crate::support::{Ran, Workplace, names, transmla};

/// A place with a model converted in closed form to 31 % of its cache.
fn converted() -> Workplace {
    let place = Workplace::new();
    transmla(&place.convert(&["--kv-lora-rank", "12", "--refine", "0", "--cal-nsamples", "16"])).succeeds();
    place
}

fn heal(place: &Workplace, more: &str) -> Ran {
    let words = format!("heal --cal-dataset stories --cal-max-seqlen 64 {more}");
    let mut arguments: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
    let given = |name: &str| arguments.iter().any(|word| word == name);
    let defaults = [
        ("--model-path", "outputs"),
        ("--against", "model"),
        ("--save-path", "healed"),
    ];
    let missing: Vec<_> = defaults.into_iter().filter(|(name, _)| !given(name)).collect();
    for (name, value) in missing {
        arguments.extend([name.to_owned(), place.arg(value)]);
    }
    transmla(&arguments)
}

#[test]
fn a_healed_model_is_nearer_to_its_original_and_as_sound() {
    let place = converted();
    let result = heal(&place, "--steps 30 --learning-rate 0.01 --json").json();
    let kl = |when: &str| result["held_out"][when]["kl"].as_f64().unwrap();
    assert!(kl("after") < 0.9 * kl("before"), "{result}");
    assert!(result["tokens_per_second"].as_f64() > Some(0.0), "{result}");
    assert_eq!(result["tokens"], 30 * 8 * 64);
    // The same files in the same form, but for the page of the conversion.
    let mut expected = names(&place.path("outputs"));
    expected.retain(|name| name != "report.html");
    assert_eq!(names(&place.path("healed")), expected);
    let read = |file: &str| fs::read_to_string(place.path("healed").join(file)).unwrap();
    assert_eq!(
        read("config.json"),
        fs::read_to_string(place.path("outputs/config.json")).unwrap()
    );
    let card = read("README.md");
    assert!(
        card.contains("## Healed") && card.contains("perplexity before healing"),
        "{card}"
    );
    let recipe: Value = toml_as_json(&read("transmla.toml"));
    assert_eq!(recipe["heal"]["steps"], 30);
    assert_eq!(recipe["kv-lora-rank"], 12);

    let verified = transmla(&["verify", "--json", "--model-path", &place.arg("healed")]).json();
    assert_eq!(verified["passed"], true, "{verified}");
    let perplexity = |model: &str| {
        let more = [
            "--dataset",
            "stories",
            "--seqlen",
            "64",
            "--max-windows",
            "16",
            "--json",
        ];
        let ran = transmla(&[&["eval", "--model-path", &place.arg(model)][..], &more].concat()).json();
        ran["perplexity"].as_f64().unwrap()
    };
    assert!(perplexity("healed") < perplexity("outputs"));
    // It is this program's own, and replaced on purpose alone.
    heal(&place, "--steps 1").fails(1, &["--force"]);
    heal(&place, "--steps 1 --force").succeeds();
    // A conversion by its recipe is the conversion alone, and says so.
    let recipe = place.arg("healed/transmla.toml");
    let again = [
        "convert",
        "--recipe",
        &recipe,
        "--model-path",
        &place.arg("model"),
        "--save-path",
        &place.arg("again"),
    ];
    let ran = transmla(&again);
    assert!(ran.stderr.contains("transmla heal"), "{ran:?}");
    assert!(
        !fs::read_to_string(place.path("again/transmla.toml"))
            .unwrap()
            .contains("[heal]")
    );
}

/// Enough of TOML for numbers of a table.
fn toml_as_json(text: &str) -> Value {
    let mut all = serde_json::Map::new();
    let mut table = String::new();
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            table = name.to_owned();
        } else if let Some((key, value)) = line.split_once(" = ")
            && let Ok(number) = value.parse::<u64>()
        {
            let slot = match table.is_empty() {
                true => &mut all,
                false => all
                    .entry(table.clone())
                    .or_insert_with(|| Value::Object(Default::default()))
                    .as_object_mut()
                    .unwrap(),
            };
            slot.insert(key.to_owned(), number.into());
        }
    }
    Value::Object(all)
}

#[test]
fn a_dry_run_tells_time_and_memory_and_writes_nothing() {
    let place = converted();
    let before = place.contents();
    let plan = heal(&place, "--steps 50 --dry-run").succeeds();
    for word in [
        "attention, 50 steps of 8 sequences",
        "memory",
        "time",
        "64 tokens of stories",
    ] {
        assert!(plan.contains(word), "no {word} in {plan}");
    }
    let json = heal(&place, "--dry-run --json").json();
    assert!(json["seconds_estimate"].as_f64() > Some(0.0), "{json}");
    assert!(json["peak_memory_estimate_bytes"].as_u64() > Some(1 << 20), "{json}");
    assert_eq!(place.contents(), before);
}

#[test]
fn what_cannot_be_healed_is_refused() {
    let place = converted();
    let original = place.arg("model");
    heal(&place, &format!("--model-path {original}")).fails(1, &["no latent attention", "give a converted model"]);
    let converted = place.arg("outputs");
    heal(&place, &format!("--against {converted}")).fails(1, &["already has latent attention"]);
    heal(&place, &format!("--save-path {converted} --force"))
        .fails(1, &["would replace", "choose another --save-path"]);
    heal(&place, "--kl-weight 0").fails(1, &["--kl-weight", "nothing to learn from"]);
    heal(&place, "--steps 0").fails(2, &["a positive integer"]);
    assert!(!place.path("healed").exists());
}
