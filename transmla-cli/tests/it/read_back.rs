//! A converted model read by the other commands.

use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::support::{Ran, Workplace, transmla, write_ids};

/// Ids of stories, good enough for a model to predict.
const IDS: [i64; 18] = [
    1, 403, 407, 261, 378, 432, 383, 285, 286, 261, 376, 367, 421, 300, 395, 317, 400, 436,
];

fn converted(more: &[&str]) -> (Workplace, Value) {
    let place = Workplace::new();
    let result = transmla(&place.convert(&[&["--json"], more].concat())).json();
    (place, result)
}

#[test]
fn eval_finds_the_perplexity_that_the_conversion_reported() {
    let (place, result) = converted(&[]);
    let model = place.arg("outputs");
    let line = "--dataset stories --seqlen 32 --max-windows 2 --json";
    let arguments: Vec<&str> = ["eval", "--model-path", &model]
        .into_iter()
        .chain(line.split(' '))
        .collect();
    let measured = transmla(&arguments).json();
    let (expected, found) = (&result["perplexity"]["mla"], &measured["perplexity"]);
    let (expected, found) = (expected.as_f64().unwrap(), found.as_f64().unwrap());
    assert!((found / expected - 1.0).abs() < 1e-5, "{expected} {found}");
    assert_eq!(
        (&measured["windows"], &measured["predictions"]),
        (&json!(2), &json!(62))
    );
    let compared = transmla(&[&arguments[..], &["--against", "embedded"]].concat()).json();
    assert!(compared["against"]["kl"].as_f64() > Some(0.0), "{compared}");
    let same = transmla(&[&arguments[..], &["--against", &model]].concat()).json();
    assert_eq!(same["against"]["top1_agreement"], 1.0);
    assert!(same["against"]["max_logit_difference"].as_f64() < Some(1e-3), "{same}");
}

/// The ranges of a window make up the whole, in numbers and in the table.
#[test]
fn eval_measures_by_position() {
    let line =
        "eval --model-path embedded --dataset stories --seqlen 200 --max-windows 2 --by-position --against embedded";
    let arguments: Vec<&str> = line.split(' ').collect();
    let measured = transmla(&[&arguments[..], &["--json"]].concat()).json();
    let ranges = measured["by_position"].as_array().unwrap();
    let positions: Vec<_> = ranges.iter().map(|range| &range["positions"]).collect();
    assert_eq!(positions, [&json!([0, 127]), &json!([128, 199])]);
    let weighted = ranges.iter().map(|range| {
        let predictions = range["predictions"].as_f64().unwrap();
        predictions * range["mean_nll"].as_f64().unwrap()
    });
    let mean = weighted.sum::<f64>() / 398.0;
    assert!(
        (mean - measured["mean_nll"].as_f64().unwrap()).abs() < 1e-9,
        "{measured}"
    );
    let compared = measured["against"]["by_position"].as_array().unwrap();
    for (range, compared) in ranges.iter().zip(compared) {
        assert_eq!(range["perplexity"], compared["perplexity"]);
        assert_eq!(
            (&compared["kl"], &compared["top1_agreement"]),
            (&json!(0.0), &json!(1.0))
        );
    }
    let text = transmla(&arguments).succeeds();
    for words in [
        "by position  0 to 127     perplexity",
        "128 to 199   perplexity",
        "KL 0.000000, same 100.00 %",
    ] {
        assert!(text.contains(words), "no {words} in {text}");
    }
    // Only where it is asked for.
    let without = &arguments[..arguments.len() - 3];
    assert!(!transmla(without).succeeds().contains("by position"));
    let tasks = ["eval", "--model-path", "embedded", "--tasks", "needle", "--by-position"];
    transmla(&tasks).fails(2, &["--by-position", "--tasks"]);
}

#[test]
fn eval_measures_several_texts_and_says_how_sure_it_is() {
    let (place, _) = converted(&[]);
    std::fs::write(
        place.path("own.txt"),
        "Once upon a time there was a cat. It sat on a mat.\n".repeat(40),
    )
    .unwrap();
    let (model, own) = (place.arg("outputs"), place.arg("own.txt"));
    let eval = |dataset: &str, more: &[&str]| {
        let line = ["eval", "--model-path", &model, "--dataset", dataset, "--seqlen", "32"];
        transmla(&[&line[..], &["--max-windows", "3"], more].concat())
    };
    let both = eval(&format!("stories,{own}"), &["--against", "embedded", "--json"]).json();
    let texts = both["texts"].as_array().unwrap();
    assert_eq!(texts.len(), 2, "{both}");
    for (text, name) in texts.iter().zip(["stories", own.as_str()]) {
        let alone = eval(name, &["--against", "embedded", "--json"]).json();
        assert_eq!(text, &alone);
        let error = alone["standard_error"].as_f64().unwrap();
        assert!(error > 0.0 && error < alone["mean_nll"].as_f64().unwrap(), "{alone}");
        // The other model's perplexity is what it has by itself.
        let line = [
            "eval",
            "--model-path",
            "embedded",
            "--dataset",
            name,
            "--seqlen",
            "32",
            "--max-windows",
            "3",
            "--json",
        ];
        assert_eq!(alone["against"]["perplexity"], transmla(&line).json()["perplexity"]);
    }
    let printed = eval(&format!("stories,{own}"), &[]).succeeds();
    assert_eq!(printed.matches(" ± ").count(), 4, "{printed}");
    let single = transmla(&[
        "eval",
        "--model-path",
        &model,
        "--dataset",
        "stories",
        "--seqlen",
        "32",
        "--max-windows",
        "1",
    ]);
    assert!(!single.succeeds().contains('±'));
    let line = ["verify", "--model-path", &model, "--dataset", "stories,ptb"];
    transmla(&line).fails(1, &["one text"]);
}

#[test]
fn logits_and_eval_agree() {
    let (place, _) = converted(&["--dtype", "fp32"]);
    let (ids, output, model) = (
        place.arg("ids.safetensors"),
        place.arg("logits.safetensors"),
        place.arg("outputs"),
    );
    write_ids(&place.path("ids.safetensors"), &IDS, [2, 9]);
    let words = ["logits", "--model-path", &model, "--input-ids", &ids, "--output"];
    let writing_to = |file| [&words[..], &[file]].concat();
    let arguments = writing_to(output.as_str());
    transmla(&arguments).succeeds();
    let nll = mean_nll(&std::fs::read(place.path("logits.safetensors")).unwrap());
    let measured = transmla(&["eval", "--model-path", &model, "--tokens", &ids, "--json"]).json();
    let found = measured["mean_nll"].as_f64().unwrap();
    assert!((nll - found).abs() < 1e-5, "{nll} {found}");

    transmla(&arguments).fails(1, &["logits.safetensors exists", "--force"]);
    transmla(&[&arguments[..], &["--force"]].concat()).succeeds();
    assert_eq!(place.contents(), ["ids.safetensors", "logits.safetensors", "outputs"]);
    let nowhere = place.arg("ids.safetensors/x");
    transmla(&writing_to(&nowhere)).fails(1, &["cannot write --output", "ids.safetensors/x"]);
}

/// Mean negative log-likelihood of [`IDS`] as two rows of nine.
fn mean_nll(file: &[u8]) -> f64 {
    let tensors = SafeTensors::deserialize(file).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    assert_eq!(logits.shape(), [2, 9, 512]);
    let numbers = logits.data().chunks_exact(4);
    let numbers: Vec<f64> = numbers
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let predictions = (0..18).filter(|position| position % 9 != 8);
    let nll = predictions.map(|position| {
        let row = &numbers[position * 512..(position + 1) * 512];
        let normaliser = row.iter().map(|logit| logit.exp()).sum::<f64>().ln();
        normaliser - row[IDS[position + 1] as usize]
    });
    nll.sum::<f64>() / 16.0
}

#[test]
fn inspect_tells_the_shapes() {
    let (place, _) = converted(&[]);
    let model = place.arg("outputs");
    let json = transmla(&["inspect", "--model-path", &model, "--json"]).json();
    assert_eq!(json["kv_cache"]["numbers_per_token_and_layer"], 36);
    assert_eq!(
        (&json["attention"]["kv_lora_rank"], &json["model_type"]),
        (&json!(28), &json!("deepseek_v3"))
    );
    // As its recipe names it, relative to that.
    assert_eq!(json["converted_from"], "../model");
    assert_eq!(json["suggestions"], json!([]));
    let text = transmla(&["inspect", "--model-path", &model]).succeeds();
    assert!(text.contains("latent 28, shared rotary key 8"), "{text}");
    let original = transmla(&["inspect", "--model-path", "embedded", "--json"]).json();
    assert_eq!(original["parameters"], 260_032);
    let quarter = json!({"kv_budget": "25%", "qk_mqa_dim": 8, "kv_lora_rank": 8, "cache_numbers": 16});
    assert_eq!(original["suggestions"][1], quarter);
    // A converted model is not converted again.
    let arguments = ["convert", "--model-path", &model, "--dry-run"];
    transmla(&arguments).fails(1, &["already has latent attention", "deepseek_v3"]);
}

#[test]
fn generate_continues_the_same_way_for_the_same_seed() {
    let (place, _) = converted(&[]);
    let model = place.arg("outputs");
    let generate = |more: &[&str]| -> Ran {
        let start = [
            "generate",
            "--model-path",
            &model,
            "--prompt",
            "Once upon a time",
            "--max-new-tokens",
            "24",
        ];
        transmla(&[&start, more].concat())
    };
    let greedy = generate(&[]);
    assert!(
        greedy.stderr.contains("24 new tokens in") && greedy.stderr.contains("36 numbers per token"),
        "{greedy:?}"
    );
    let greedy = greedy.succeeds();
    assert!(
        greedy.starts_with("Once upon a time, ") && greedy.ends_with('\n'),
        "{greedy}"
    );
    assert_eq!(
        generate(&["--temperature", "0", "--seed", "9", "-q"]).succeeds(),
        greedy
    );
    let random = |seed: &str| generate(&["--temperature", "1", "--top-p", "0.9", "--seed", seed]).succeeds();
    assert_eq!(random("1"), random("1"));
    assert_ne!(random("1"), random("2"));
}

#[test]
fn the_cache_of_a_converted_model_is_smaller() {
    let (place, _) = converted(&[]);
    let bytes = |model: &str| {
        let ran = transmla(&[
            "generate",
            "--model-path",
            model,
            "--prompt",
            "Lily",
            "--max-new-tokens",
            "9",
        ]);
        let line = ran
            .stderr
            .lines()
            .find(|line| line.starts_with("KV cache"))
            .unwrap_or_default()
            .to_owned();
        line.split_whitespace()
            .nth(2)
            .and_then(|word| word.parse::<f64>().ok())
            .unwrap_or(f64::NAN)
    };
    let ratio = bytes(&place.arg("outputs")) / bytes("embedded");
    assert!((ratio - 36.0 / 64.0).abs() < 0.02, "{ratio}");
}

/// The command that measures finds what there is to decode, side by side; its times are nobody's promise.
#[test]
fn bench_sets_two_models_side_by_side() {
    let (place, _) = converted(&[]);
    let outputs = place.arg("outputs");
    let run = |more: &[&str]| {
        let start = [
            "bench",
            "--model-path",
            &outputs,
            "--context",
            "64,256",
            "--batch",
            "1,3",
        ];
        transmla(&[&start, more].concat()).succeeds()
    };
    let json = run(&["--against", "embedded", "--json", "--cache-dtype", "bf16"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    for (model, numbers) in [36, 64].into_iter().enumerate() {
        let model = &json["models"][model];
        assert_eq!(model["numbers_per_token_and_layer"], numbers);
        let steps = model["steps"].as_array().unwrap();
        let cases = [(64, 1), (64, 3), (256, 1), (256, 3)];
        assert_eq!(steps.len(), cases.len());
        for (step, (context, batch)) in steps.iter().zip(cases) {
            assert_eq!((&step["context"], &step["batch"]), (&context.into(), &batch.into()));
            assert_eq!(step["cache_bytes"], 5 * 2 * numbers * context * batch);
            let rate = step["tokens_per_second"].as_f64().unwrap() * step["seconds_per_token"].as_f64().unwrap();
            assert!((rate / f64::from(batch) - 1.0).abs() < 1e-9, "{step}");
        }
    }
    let text = run(&["--new-tokens", "2"]);
    assert!(text.contains("tok/s") && !text.contains("speed-up"), "{text}");
}

/// What goes to files, or to stdout as it comes, has a result for programs too.
#[test]
fn every_command_prints_json() {
    let (place, _) = converted(&[]);
    write_ids(&place.path("ids.safetensors"), &[1, 2], [1, 2]);
    let (outputs, ids) = (place.arg("outputs"), place.arg("ids.safetensors"));
    let (gguf, logits) = (place.arg("model.gguf"), place.arg("logits.safetensors"));
    let json = |arguments: &[&str]| transmla(&[arguments, &["--json", "--model-path", &outputs]].concat()).json();
    let exported = json(&["export", "--output", &gguf]);
    assert_eq!(exported["bytes"], std::fs::metadata(&gguf).unwrap().len());
    let written = json(&["logits", "--input-ids", &ids, "--output", &logits]);
    assert_eq!(written["shape"], serde_json::json!([1, 2, 512]));
    let generated = json(&["generate", "--prompt", "Once upon a time", "--max-new-tokens", "5"]);
    assert_eq!(generated["new_tokens"], 5);
    let text = transmla(&[
        "generate",
        "--prompt",
        "Once upon a time",
        "--max-new-tokens",
        "5",
        "--model-path",
        &outputs,
    ]);
    let text = text.succeeds();
    assert_eq!(
        text.trim_end(),
        format!("Once upon a time{}", generated["text"].as_str().unwrap()).trim_end()
    );
}

#[test]
fn bench_takes_no_cache_that_memory_cannot_hold() {
    for context in ["1000000000000", "18446744073709551615"] {
        let arguments = [
            "bench",
            "--model-path",
            "embedded",
            "--batch",
            "8",
            "--context",
            context,
        ];
        let words = ["the KV cache of 8 x", "TiB", "--context", "are needed"];
        transmla(&arguments).fails(1, &words);
    }
}

#[test]
fn bad_input_to_the_other_commands() {
    let place = Workplace::new();
    let (model, ids) = (place.arg("model"), place.arg("ids.safetensors"));
    write_ids(&place.path("ids.safetensors"), &[1, 600], [1, 2]);
    let output = place.arg("logits.safetensors");
    let logits = [
        "logits",
        "--model-path",
        &model,
        "--input-ids",
        &ids,
        "--output",
        &output,
    ];
    transmla(&logits).fails(1, &["ids.safetensors", "token id 600"]);
    transmla(&["eval", "--model-path", &model, "--tokens", &ids]).fails(1, &["ids.safetensors", "token id 600"]);
    write_ids(&place.path("ids.safetensors"), &[1, 6], [2, 1]);
    transmla(&["eval", "--model-path", &model, "--tokens", &ids]).fails(1, &["at least 2 are needed"]);
    std::fs::remove_file(place.path("model/tokenizer.json")).unwrap();
    let words = ["tokenizer.json", "missing"];
    transmla(&["eval", "--model-path", &model, "--dataset", "stories"]).fails(1, &words);
    transmla(&["generate", "--model-path", &model, "--prompt", "x"]).fails(1, &words);
    crate::damage::truncate(&place.path("model/model.safetensors"), 1);
    transmla(&["inspect", "--model-path", &model]).fails(1, &["model.safetensors", "bytes"]);
}
