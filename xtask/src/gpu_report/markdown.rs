//! The report for people.

use std::fmt::Write;

use serde_json::{Map, Value};

/// How many results of the kernels are wrong.
pub fn wrong_results(check: &Value) -> usize {
    list(check, "results").filter(|result| result["right"] != true).count()
}

/// Writes what a stage found, on models of so many layers.
type Section = fn(&mut String, &Value, &Value);

/// All of the report.
pub fn render(report: &Map<String, Value>) -> String {
    let machine = &report["machine"];
    let mut text = String::from("# GPU report\n\n");
    let card = machine["card"].as_str().unwrap_or("an unnamed GPU");
    // Writing to a string does not fail; nor does it below.
    let _ = writeln!(
        text,
        "{card}, driver {}, {} processor cores beside it; device {}.\n",
        machine["driver"].as_str().unwrap_or("unknown"),
        machine["cores"],
        report["device"].as_str().unwrap_or_default(),
    );
    let sections: [(&str, Section); 4] = [
        ("check", check),
        ("attend", attend),
        ("decode", decode),
        ("convert", convert),
    ];
    for (name, section) in sections {
        if let Some(found) = report.get(name) {
            section(&mut text, found, &report["layers"]);
            failures(&mut text, found);
        }
    }
    text
}

fn failures(text: &mut String, found: &Value) {
    for (what, failure) in found["failures"].as_object().into_iter().flatten() {
        let _ = writeln!(text, "\n- {what}: {}", failure.as_str().unwrap_or_default());
    }
    text.push('\n');
}

fn check(text: &mut String, found: &Value, _layers: &Value) {
    let _ = writeln!(
        text,
        "## The kernels against plain tensor operations\n\n{} comparisons, {} wrong. Largest relative error:\n",
        list(found, "results").count(),
        wrong_results(found),
    );
    text.push_str("| format | fused | error | limit |\n| --- | --- | --- | --- |\n");
    for dtype in ["F32", "F16", "BF16", "product"] {
        let results = || list(found, "results").filter(|result| result["dtype"] == dtype);
        let worst = results()
            .filter_map(|result| result["error"].as_f64())
            .fold(0.0, f64::max);
        let fused = results().filter(|result| result["fused"] == true).count();
        let Some(first) = results().next() else { continue };
        let _ = writeln!(
            text,
            "| {dtype} | {fused} of {} | {worst:.1e} | {} |",
            results().count(),
            first["limit"]
        );
    }
}

fn attend(text: &mut String, found: &Value, _layers: &Value) {
    let others = |problem: &Value| list(found, "others").find(move |other| other["problem"] == *problem);
    let copy = list(found, "others").find(|other| other["problem"] == "copy");
    let copied = copy.and_then(|copy| Some(copy["bytes"].as_f64()? / copy["copy"].as_f64()?));
    text.push_str("## Attention of one new token to a cache in bf16\n\n");
    if let Some(rate) = copied {
        let _ = writeln!(
            text,
            "A copy on the card moves {:.0} GB/s, counting bytes read and written.\n",
            rate / 1e9
        );
    }
    text.push_str("| problem | time | GB/s | TFLOP/s | of a copy | PyTorch | FlashMLA | of FlashMLA's speed |\n");
    text.push_str("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for result in list(found, "kernels") {
        let (Some(seconds), Some(bytes), Some(operations)) = (
            result["seconds"].as_f64(),
            result["bytes"].as_f64(),
            result["operations"].as_f64(),
        ) else {
            continue;
        };
        let other = |name: &str| others(&result["problem"]).and_then(|other| other[name].as_f64());
        let time = |seconds: Option<f64>| seconds.map_or("-".to_owned(), microseconds);
        let percent = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.0} %", 100.0 * share));
        let rate = bytes / seconds;
        let _ = writeln!(
            text,
            "| {} | {} | {:.0} | {:.1} | {} | {} | {} | {} |",
            described(result["problem"].as_str().unwrap_or_default()),
            microseconds(seconds),
            rate / 1e9,
            operations / seconds / 1e12,
            percent(copied.map(|copied| rate / copied)),
            time(other("torch")),
            time(other("flashmla")),
            percent(other("flashmla").map(|flash| flash / seconds)),
        );
    }
}

/// `latent 128 32 4096 576 512` in words.
fn described(problem: &str) -> String {
    let words: Vec<&str> = problem.split(' ').collect();
    match words[..] {
        ["latent", batch, heads, tokens, width, values] => {
            format!("{heads} heads, latent {width} ({values} of them values), batch {batch}, {tokens} tokens")
        }
        ["grouped", batch, heads, groups, tokens, width] => {
            format!("{heads} heads on {groups} of {width}, batch {batch}, {tokens} tokens")
        }
        _ => problem.to_owned(),
    }
}

fn decode(text: &mut String, found: &Value, layers: &Value) {
    let _ = writeln!(
        text,
        "## Decoding by a model in the shape of Llama 2 7B\n\n{layers} of its 32 layers, random weights, caches in bf16: a latent of \
         512 + 64 (left) and multi-head attention.\n"
    );
    text.push_str("| tokens | batch | ms/token | tokens/s | KV cache | ms/token | tokens/s | KV cache | speed-up |\n");
    text.push_str("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |\n");
    for run in list(found, "runs") {
        let models: Vec<&Value> = list(&run["result"], "models").collect();
        let [latent, grouped] = models[..] else { continue };
        for (latent, grouped) in list(latent, "steps").zip(list(grouped, "steps")) {
            let cells = |step: &Value| {
                format!(
                    "{:.2} | {:.0} | {}",
                    1e3 * step["seconds_per_token"].as_f64().unwrap_or(f64::NAN),
                    step["tokens_per_second"].as_f64().unwrap_or(f64::NAN),
                    gibibytes(step["cache_bytes"].as_f64().unwrap_or(f64::NAN)),
                )
            };
            let seconds = |step: &Value| step["seconds_per_token"].as_f64().unwrap_or(f64::NAN);
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {:.2}x |",
                latent["context"],
                latent["batch"],
                cells(latent),
                cells(grouped),
                seconds(grouped) / seconds(latent),
            );
        }
    }
}

fn convert(text: &mut String, found: &Value, layers: &Value) {
    let _ = writeln!(
        text,
        "## Converting a model in the shape of Llama 3 8B\n\n{layers} of its 32 layers, random weights, 128 sequences of 256 tokens, \
         without evaluations.\n"
    );
    text.push_str("| method | phase | seconds |\n| --- | --- | ---: |\n");
    for run in list(found, "runs") {
        let method = run["method"].as_str().unwrap_or_default();
        for (phase, seconds) in run["result"]["timings"].as_object().into_iter().flatten() {
            let _ = writeln!(
                text,
                "| {method} | {phase} | {:.1} |",
                seconds.as_f64().unwrap_or(f64::NAN)
            );
        }
        let host = run["result"]["peak_memory_bytes"]
            .as_f64()
            .map_or("-".to_owned(), gibibytes);
        let device = run["device_mebibytes"].as_f64();
        let device = device.map_or("-".to_owned(), |mebibytes| gibibytes(mebibytes * f64::from(1 << 20)));
        let _ = writeln!(text, "| {method} | peak memory: host {host}, device {device} | |");
    }
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value[name].as_array().into_iter().flatten()
}

fn microseconds(seconds: f64) -> String {
    format!("{:.1} us", 1e6 * seconds)
}

fn gibibytes(bytes: f64) -> String {
    format!("{:.2} GiB", bytes / f64::from(1 << 30))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_report_has_what_was_found_and_what_failed() {
        let report = json!({
            "machine": {"card": "Card", "driver": "1.2", "cores": 16},
            "device": "cuda:0",
            "layers": 4,
            "check": {"results": [
                {"dtype": "F32", "error": 1e-6, "limit": 1e-5, "right": true, "fused": true},
                {"dtype": "F32", "error": null, "limit": 1e-5, "right": false, "fused": true},
            ]},
            "attend": {
                "kernels": [{"problem": "latent 128 32 4096 576 512", "seconds": 2e-4, "bytes": 6e8, "operations": 3.6e10}],
                "others": [
                    {"problem": "copy", "copy": 1e-3, "bytes": 4_000_000_000u64},
                    {"problem": "latent 128 32 4096 576 512", "torch": 4e-4, "flashmla": 1.8e-4},
                ],
            },
            "decode": {"failures": {"batch 64": "its time was up"}, "runs": [{"result": {"models": [
                {"steps": [{"context": 1024, "batch": 1, "seconds_per_token": 0.002, "tokens_per_second": 500.0,
                    "cache_bytes": 1u64 << 30}]},
                {"steps": [{"context": 1024, "batch": 1, "seconds_per_token": 0.004, "tokens_per_second": 250.0,
                    "cache_bytes": 1u64 << 31}]},
            ]}}]},
            "convert": {"runs": [{"method": "transmla", "device_mebibytes": 2048,
                "result": {"timings": {"total": 12.5}, "peak_memory_bytes": 1u64 << 30}}]},
        });
        let Value::Object(report) = report else { unreachable!() };
        assert_eq!(wrong_results(&report["check"]), 1);
        let text = render(&report);
        for part in [
            "Card, driver 1.2, 16 processor cores",
            "2 comparisons, 1 wrong",
            "| 200.0 us | 3000 | 180.0 | 75 % | 400.0 us | 180.0 us | 90 % |",
            "| 1024 | 1 | 2.00 | 500 | 1.00 GiB | 4.00 | 250 | 2.00 GiB | 2.00x |",
            "batch 64: its time was up",
            "| transmla | total | 12.5 |",
            "host 1.00 GiB, device 2.00 GiB",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }
}
