//! Wrong usage ends with exit code 2 before anything happens.

use crate::support::transmla;

#[test]
fn wrong_usage_has_its_own_exit_code() {
    for (line, words) in [
        ("convert --kv-lora-rnak 3", ["--kv-lora-rnak", "--kv-lora-rank"]),
        ("convert --kv-lora-rank many", ["--kv-lora-rank", "positive integer"]),
        ("convert --kv-lora-rank 0", ["--kv-lora-rank", "positive integer"]),
        ("convert --cal-nsamples 0", ["--cal-nsamples", "positive integer"]),
        ("convert --dtype int8", ["--dtype", "fp32, fp16, bf16"]),
        ("convert --device tpu", ["--device", "cpu"]),
        ("convert --cal-dataset nosuch", ["--cal-dataset", "wikitext2"]),
        ("convert --freqfold often", ["--freqfold", "auto or a positive integer"]),
        ("convert --collapse 1.5", ["--collapse", "auto or a positive integer"]),
        ("convert --method other", ["--method", "transmla"]),
        ("convert --kv-budget half", ["--kv-budget", "50%, 0.5 or 50"]),
        ("convert --eval-seqlen 1", ["--eval-seqlen", "2 or more"]),
        ("convert --cal-noise 200%", ["--cal-noise", "a share of 0 to 1"]),
        (
            "convert --kv-budget 25% --kv-lora-rank 8",
            ["--kv-budget", "cannot be used with"],
        ),
        (
            "convert --kv-budget 25% --qk-mqa-dim 8",
            ["--kv-budget", "cannot be used with"],
        ),
        ("convert --max-shard-size huge", ["--max-shard-size", "5GB"]),
        ("convert --format yaml", ["--format", "gguf"]),
        ("convert --format json", ["--format", "use '--json'"]),
        ("convert --format gguf,text", ["--format", "use '--json'"]),
        (
            "inspect --model-path embedded --format json",
            ["--format", "use '--json'"],
        ),
        (
            "verify --format=text --model-path embedded",
            ["--format", "use '--json'"],
        ),
        ("sweep --json sweep.json", ["'sweep.json'", "--figures"]),
        ("convert --target tgi", ["--target", "llama.cpp"]),
        ("convert --seed -1", ["-1", "--seed"]),
        ("convert surplus", ["surplus", "Usage"]),
        ("sweep --budgets 8-28", ["--budgets", "8+28"]),
        ("sweep --methods other", ["--methods", "coherent"]),
        ("sweep --svg a --output b", ["--output", "cannot be used with"]),
        ("eval --model-path embedded", ["--dataset", "--tokens"]),
        (
            "eval --model-path embedded --dataset stories --tokens x",
            ["--tokens", "cannot be used with"],
        ),
        ("eval --dataset stories", ["--model-path", "required"]),
        (
            "eval --model-path embedded --dataset stories --batch-size 0",
            ["--batch-size", "positive"],
        ),
        ("logits --model-path embedded", ["--input-ids", "--output"]),
        (
            "generate --model-path embedded --prompt x --temperature -1",
            ["--temperature", "a number of 0 or more"],
        ),
        (
            "generate --model-path embedded --prompt x --top-p 2",
            ["--top-p", "at most 1"],
        ),
        (
            "generate --model-path embedded --prompt x --cache-dtype int3",
            [
                "--cache-dtype",
                "fp32, bf16, fp16, and for latents int8, fp8-e4m3 and int4",
            ],
        ),
        ("bench", ["--model-path", "required"]),
        (
            "bench --model-path embedded --context 512,0",
            ["--context", "positive integer"],
        ),
        ("inspect", ["--model-path", "required"]),
        ("completions powershell5", ["powershell5", "bash"]),
        ("refine", ["refine", "Usage"]),
        ("--colour", ["--colour", "Usage"]),
    ] {
        let words: Vec<&str> = words.to_vec();
        transmla(&line.split(' ').collect::<Vec<_>>()).fails(2, &words);
    }
}

/// A number that is none of a share is one out of range, whatever it is written like.
#[test]
fn budgets_are_told_their_range() {
    for budget in ["101", "101%", "1.01e2"] {
        let (words, hint) = (["101% does not fit", "4.7% to 100%"], "try --kv-budget 25%");
        transmla(&["convert", "--kv-budget", budget, "--dry-run"]).fails(1, &[words[0], words[1], hint]);
        transmla(&["sweep", "--budgets", budget]).fails(1, &[words[0], words[1], "try --budgets 25%"]);
    }
}

#[test]
fn no_command_shows_help() {
    let ran = transmla::<&str>(&[]);
    assert_eq!(ran.code, Some(2));
    assert!(
        ran.stderr.contains("convert") && ran.stderr.contains("Examples:"),
        "{ran:?}"
    );
}

#[test]
fn says_its_version_and_completes() {
    let version = transmla(&["--version"]).succeeds();
    assert_eq!(version.trim(), format!("transmla {}", env!("CARGO_PKG_VERSION")));
    let convert = transmla(&["help", "convert"]).succeeds();
    assert!(convert.contains("--kv-lora-rank"), "{convert}");
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = transmla(&["completions", shell]).succeeds();
        assert!(script.contains("kv-lora-rank"), "{shell}");
    }
}
