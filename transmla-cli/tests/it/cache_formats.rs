//! KV caches of latents with few bits, from the command line.

use std::path::Path;

use serde_json::Value;
use transmla_core::{CacheFormat, ModelConfig, Quantisation};

use crate::support::{Workplace, transmla};

fn converted(more: &[&str]) -> (Workplace, Value) {
    let place = Workplace::new();
    let result = transmla(&place.convert(&[&["--json"], more].concat())).json();
    (place, result)
}

const QUANTISED: [&str; 3] = ["int8", "fp8-e4m3", "int4"];

/// Perplexity through a cache is near that without one, and the nearer the more bits there are.
#[test]
fn eval_measures_through_the_cache() {
    let (place, _) = converted(&[]);
    let model = place.arg("outputs");
    let eval = |more: &[&str]| {
        let start = [
            "eval",
            "--model-path",
            &model,
            "--dataset",
            "stories",
            "--seqlen",
            "64",
            "--max-windows",
            "6",
        ];
        transmla(&[&start, more, &["--json"]].concat()).json()
    };
    let perplexity = |found: &Value| found["perplexity"].as_f64().unwrap();
    let without = eval(&[]);
    assert_eq!(without.get("cache_dtype"), None);
    let exact = perplexity(&eval(&["--cache-dtype", "fp32"]));
    assert!((exact / perplexity(&without) - 1.0).abs() < 1e-5, "{exact}");
    let mut divergences = Vec::new();
    for format in QUANTISED {
        let found = eval(&["--cache-dtype", format, "--against", &model]);
        assert_eq!(found["cache_dtype"], format);
        // The other has no cache.
        assert_eq!(found["against"]["perplexity"], without["perplexity"]);
        let ratio = perplexity(&found) / exact - 1.0;
        assert!(ratio.abs() < 0.1 && ratio != 0.0, "{format}: {ratio}");
        divergences.push(found["against"]["kl"].as_f64().unwrap());
    }
    let [int8, fp8, int4] = divergences[..] else {
        panic!("three formats")
    };
    assert!(
        0.0 < int8 && int8 < fp8 && fp8 < int4 && int8 < 1e-3 && int4 < 0.2,
        "{divergences:?}"
    );
}

/// Text of a quantised cache begins as that of an exact one; its size is what the plan and `inspect` say.
#[test]
fn generate_and_bench_count_what_is_kept() {
    let (place, _) = converted(&[]);
    let model = place.arg("outputs");
    let config = ModelConfig::read(&place.path("outputs")).unwrap();
    let generate = |format: &str| {
        let arguments = [
            "generate",
            "--model-path",
            &model,
            "--prompt",
            "Once upon a time",
            "--max-new-tokens",
            "9",
        ];
        transmla(&[&arguments[..], &["--cache-dtype", format, "--json"]].concat()).json()
    };
    let inspected = transmla(&["inspect", "--model-path", &model, "--json"]).json();
    let exact = generate("fp32");
    for format in QUANTISED {
        let bytes = format.parse::<CacheFormat>().unwrap().bytes_per_token(&config).unwrap();
        let found = generate(format);
        assert_eq!(found["cache_bytes_per_token"], bytes * config.num_hidden_layers);
        assert_eq!(
            (&found["cache_dtype"], &found["new_tokens"]),
            (&format.into(), &9.into())
        );
        assert_eq!(inspected["kv_cache"]["bytes_per_token_and_layer"][format], bytes);
        let start = [
            "bench",
            "--context",
            "64",
            "--batch",
            "2",
            "--new-tokens",
            "2",
            "--cache-dtype",
            format,
        ];
        let bench =
            transmla(&[&start[..], &["--model-path", &model, "--against", "embedded", "--json"]].concat()).json();
        let [ours, theirs] = [0, 1].map(|index| bench["models"][index].clone());
        assert_eq!(
            (&ours["cache_dtype"], &ours["bytes_per_token_and_layer"]),
            (&format.into(), &bytes.into())
        );
        assert_eq!(
            ours["steps"][0]["cache_bytes"],
            bytes * config.num_hidden_layers * 64 * 2
        );
        // Grouped queries have no such cache.
        assert_eq!(
            (&theirs["cache_dtype"], &theirs["bytes_per_token_and_layer"]),
            (&"bf16".into(), &128.into())
        );
    }
    assert_eq!(generate("int8")["text"], exact["text"]);
}

/// Answers to tasks, too, are scored through the cache, and compared with what the same model says without one.
#[test]
fn tasks_are_scored_through_the_cache() {
    let (place, _) = converted(&[]);
    let model = place.arg("outputs");
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-eval/tests/tasks/data");
    let data = data.display().to_string();
    let eval = |format: &str| {
        let start = [
            "eval",
            "--tasks",
            "winogrande",
            "--limit",
            "4",
            "--tasks-data",
            &data,
            "--json",
        ];
        let models = ["--model-path", &model, "--against", &model, "--cache-dtype", format];
        let found = transmla(&[&start[..], &models[..]].concat()).json();
        found["tasks"][0]["against"]["kl"].as_f64().unwrap()
    };
    let [exact, int8, int4] = ["fp32", "int8", "int4"].map(eval);
    assert!(
        exact < 1e-6 && exact < int8 && int8 < int4 && int4 < 0.5,
        "{exact} {int8} {int4}"
    );
}

/// A model that has keys and values of its heads is refused before its weights are read.
#[test]
fn grouped_queries_have_no_quantised_cache() {
    let format = Quantisation::Int8.to_string();
    for command in [
        &["generate", "--prompt", "Lily"][..],
        &["chat"],
        &["bench"],
        &["eval", "--dataset", "stories"],
    ] {
        let arguments = [command, &["--model-path", "embedded", "--cache-dtype", &format]].concat();
        transmla(&arguments).fails(1, &["int8", "latents", "fp32, bf16 or fp16"]);
    }
    let unknown = [
        "generate",
        "--prompt",
        "x",
        "--model-path",
        "embedded",
        "--cache-dtype",
        "int5",
    ];
    transmla(&unknown).fails(2, &["int5", "fp8-e4m3"]);
}
