//! What a new user types first and gets wrong, and what is said to it.

use crate::support::{Workplace, configs, names, transmla};

#[test]
fn manual_pages_have_every_command() {
    let place = Workplace::new();
    transmla(&["man", "--output", &place.arg("man/man1")]).succeeds();
    let pages = names(&place.path("man/man1"));
    assert!(pages.contains(&"transmla.1".to_owned()), "{pages:?}");
    let help = transmla(&["--help"]).succeeds();
    for command in ["convert", "sweep", "heal", "push", "doctor", "man"] {
        assert!(help.contains(&format!("\n  {command} ")), "{command}: {help}");
        assert!(pages.contains(&format!("transmla-{command}.1")), "{pages:?}");
    }
    let page = std::fs::read_to_string(place.path("man/man1/transmla-convert.1")).unwrap();
    assert!(page.contains("kv\\-lora\\-rank") && page.starts_with(".ie"), "{page}");
    // Written again, over those that are there; not over a file in the folder's place.
    transmla(&["man", "--output", &place.arg("man/man1")]).succeeds();
    transmla(&["man", "--output", &place.arg("man/man1/transmla.1")])
        .fails(1, &["transmla.1 is a file", "--output names a folder"]);
}

#[test]
fn a_file_or_an_address_in_place_of_a_model() {
    let place = Workplace::new();
    let (weights, folder) = (place.arg("model/model.safetensors"), place.arg("model"));
    for command in ["inspect", "convert"] {
        let given = |model: &str| transmla(&[command, "--model-path", model]);
        given(&weights).fails(
            2,
            &["it is a file", &format!("pass the folder that it is in: {folder}")],
        );
        given("no/model.gguf").fails(1, &["there is no such GGUF file", "download"]);
        given("https://huggingface.co/org/model").fails(2, &["a web address", "--model-path org/model"]);
        given("https://huggingface.co/org/model/tree/v2").fails(2, &["--model-path org/model --revision v2"]);
    }
    transmla(&[
        "eval",
        "--model-path",
        &folder,
        "--dataset",
        "stories",
        "--against",
        &weights,
    ])
    .fails(2, &["it is a file"]);
}

#[test]
fn a_prompt_that_was_forgotten() {
    // Standard input is empty here.
    let words = ["no prompt was given", "--prompt TEXT", "--prompt-file FILE"];
    transmla(&["generate", "--model-path", "embedded"]).fails(1, &words);
}

#[test]
fn help_by_any_name() {
    let long = transmla(&["convert", "--help"]).succeeds();
    assert_eq!(transmla(&["help", "convert"]).succeeds(), long);
    assert_eq!(transmla(&["help"]).succeeds(), transmla(&["--help"]).succeeds());
}

/// The plan of a conversion by these arguments.
fn plan(arguments: &[&str]) -> serde_json::Value {
    let arguments = [&["convert", "--dry-run", "--json"], arguments].concat();
    transmla(&arguments).json()
}

#[test]
fn without_widths_half_of_the_cache_is_kept() {
    let widths = |arguments: &[&str]| {
        let shapes = &plan(arguments)["shapes"];
        (
            shapes["qk_rope_head_dim"].as_u64().unwrap(),
            shapes["kv_lora_rank"].as_u64().unwrap(),
        )
    };
    let smollm2 = configs().join("smollm2-135m");
    let smollm2 = smollm2.to_str().unwrap();
    // vLLM's GPU kernels hold 320, 512 or 576 numbers.
    for (target, expected) in [("transformers", (64, 128)), ("vllm", (64, 256)), ("sglang", (64, 128))] {
        assert_eq!(
            widths(&["--model-path", smollm2, "--target", target]),
            expected,
            "{target}"
        );
    }
    assert_eq!(widths(&["--model-path", smollm2, "--qk-mqa-dim", "32"]), (32, 160));
    assert_eq!(widths(&["--model-path", smollm2, "--kv-lora-rank", "100"]), (64, 100));
    // What has widths of its own keeps them.
    assert_eq!(widths(&[]), (8, 28));
    assert_eq!(widths(&["--model-path", "embedded", "--kv-lora-rank", "20"]), (8, 20));
}

#[test]
fn a_budget_is_read_as_it_is_meant() {
    for budget in ["50%", "0.5", "50", "50 %"] {
        assert_eq!(plan(&["--kv-budget", budget])["kv_cache"]["mla"], 32, "{budget}");
    }
    let little = transmla(&["convert", "--dry-run", "--kv-budget", "9"]);
    assert!(little.stderr.contains("9.4 % of the KV cache is kept"), "{little:?}");
    assert_eq!(transmla(&["convert", "--dry-run", "--kv-budget", "25"]).stderr, "");
}

#[test]
fn a_first_conversion_and_its_export() {
    let place = Workplace::new();
    std::fs::write(
        place.path("story.txt"),
        "Once upon a time there was a girl. She was happy and had a ball. ".repeat(4),
    )
    .unwrap();
    let ran = transmla(&[
        "convert",
        "--model-path",
        &place.arg("model"),
        "--save-path",
        &place.arg("new/outputs"),
        "--refine",
        "0",
        "--cal-dataset",
        &place.arg("story.txt"),
        "--cal-nsamples",
        "50",
        "--cal-max-seqlen",
        "16",
        "--eval-seqlen",
        "16",
    ]);
    assert!(
        ran.stderr.contains("calibration samples where 50 were asked for"),
        "{ran:?}"
    );
    assert!(ran.succeeds().contains("64 -> 32 numbers"));
    let recipe = std::fs::read_to_string(place.path("new/outputs/transmla.toml")).unwrap();
    for line in ["qk-mqa-dim = 8\n", "kv-lora-rank = 24\n"] {
        assert!(recipe.contains(line), "{recipe}");
    }
    let file = place.arg("no/such/folder/model.gguf");
    transmla(&["export", "--model-path", &place.arg("new/outputs"), "--output", &file]).succeeds();
    assert!(std::path::Path::new(&file).is_file());
}

#[test]
fn a_text_that_cannot_be_had_offline() {
    let arguments = ["eval", "--model-path", "embedded", "--dataset", "wikitext2"];
    let words = [
        "test split of wikitext2",
        "HF_HUB_OFFLINE",
        "hint: ",
        "--dataset",
        "--tokens",
    ];
    transmla(&arguments).fails(1, &words);
}

#[test]
fn a_configuration_that_is_broken() {
    let place = Workplace::new();
    let broken = |text: &str, words: &[&str]| {
        std::fs::write(place.path("model/config.json"), text).unwrap();
        for command in ["inspect", "convert"] {
            transmla(&[command, "--model-path", &place.arg("model")]).fails(1, words);
        }
    };
    broken(
        "{\"model_type\": \"llama\",",
        &["config.json", "not valid JSON", "line 1", "download it again"],
    );
    broken("", &["config.json", "not valid JSON", "download it again"]);
    broken("[]", &["config.json", "expected a map"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_place_that_cannot_be_written_to_is_in_the_plan() {
    let ran = transmla(&["convert", "--dry-run", "--save-path", "/proc/outputs"]);
    assert!(!ran.stderr.contains("warning"), "{ran:?}");
    ran.fails(1, &["--save-path /proc/outputs", "/proc cannot be written to"]);
}
