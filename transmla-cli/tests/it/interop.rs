//! Converted models against what stock transformers gave for them, token after token from its caches.
//!
//! `cargo xtask interop --record` makes the recordings, with the conversions of `tests/interop/cases.json`; here the same
//! conversions are made anew and compared, without Python. Where a layer has a window the text is four windows long.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::{Map, Value};
use transmla_core::ModelConfig;
use transmla_core::config::CACHE_KEYS;

use crate::support::transmla;

/// The model was converted anew: another machine rounds its second moments otherwise, and where that tips the choice of a
/// latent's power of two, what the latent's norm takes is another part of a thousandth. `cargo xtask interop` compares the same
/// files, to 1e-3.
const TOLERANCE: f32 = 2e-2;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn floats(file: &SafeTensors<'_>, name: &str) -> Vec<f32> {
    let data = file.tensor(name).unwrap();
    let numbers = data.data().chunks_exact(4);
    numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect()
}

fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<usize> {
    let data = file.tensor(name).unwrap();
    let numbers = data.data().chunks_exact(8);
    numbers
        .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]) as usize)
        .collect()
}

/// The folder to convert: a copy where the case changes keys of config.json.
fn source(case: &Value, place: &Path) -> PathBuf {
    let model = root().join(case["model"].as_str().unwrap());
    let Some(changed) = case["config"].as_object() else {
        return model;
    };
    let folder = place.join(format!("{}-source", case["name"].as_str().unwrap()));
    std::fs::create_dir(&folder).unwrap();
    for entry in std::fs::read_dir(&model).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), folder.join(entry.file_name())).unwrap();
    }
    let path = folder.join("config.json");
    let mut keys: Map<String, Value> = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    keys.extend(changed.clone());
    std::fs::write(&path, Value::from(keys).to_string()).unwrap();
    folder
}

fn convert(case: &Value, place: &Path) -> PathBuf {
    let name = case["name"].as_str().unwrap();
    let (model, target) = (source(case, place), place.join(name));
    let mut arguments = vec!["convert".to_owned(), "--model-path".into(), model.display().to_string()];
    arguments.extend(["--save-path".into(), target.display().to_string()]);
    arguments.extend(["--dtype", "fp32", "--ppl-eval-batch-size", "0"].map(str::to_owned));
    arguments.extend(case["arguments"].as_array().unwrap().iter().map(|word| {
        let word = word.as_str().unwrap();
        match word.ends_with(".safetensors") {
            true => model.join(word).display().to_string(),
            false => word.to_owned(),
        }
    }));
    let summary = transmla(&arguments).succeeds();
    assert!(summary.contains(case["class"].as_str().unwrap()), "{name}: {summary}");
    target
}

/// transformers makes its caches by these files alone.
fn check_what_caches_read(name: &str, folder: &Path) {
    let json = |file: &str| -> Map<String, Value> {
        let text = std::fs::read(folder.join(file)).unwrap();
        serde_json::from_slice(&text).unwrap()
    };
    let keys = json("config.json");
    let model = ModelConfig::read(folder).unwrap();
    let windows = (0..model.num_hidden_layers).map(|layer| model.attention_parameters(layer).window);
    match keys.get("layer_types") {
        Some(kinds) => {
            let expected = windows.clone().map(|window| match window {
                Some(_) => "sliding_attention",
                None => "full_attention",
            });
            assert_eq!(kinds, &Value::from(expected.collect::<Vec<_>>()), "{name}");
        }
        None => assert!(windows.clone().all(|window| window.is_none()), "{name}"),
    }
    let size = keys.get("sliding_window").and_then(Value::as_u64);
    assert_eq!(size, windows.flatten().next().map(|size| size as u64), "{name}");
    let generation = json("generation_config.json");
    for key in CACHE_KEYS {
        assert!(
            !keys.contains_key(*key) && !generation.contains_key(*key),
            "{name}: {key}"
        );
    }
}

fn check_recording(name: &str, folder: &Path, place: &Path) {
    let recording = recordings().join(format!("{name}.safetensors"));
    let output = place.join("logits.safetensors");
    let words = ["logits", "--force", "--model-path"].map(Path::new);
    let paths = [
        folder,
        Path::new("--input-ids"),
        &recording,
        Path::new("--output"),
        &output,
    ];
    transmla(&[&words[..], &paths].concat()).succeeds();

    let (recorded, ours) = (std::fs::read(&recording).unwrap(), std::fs::read(&output).unwrap());
    let recorded = SafeTensors::deserialize(&recorded).unwrap();
    let ours = SafeTensors::deserialize(&ours).unwrap();
    let ids = integers(&recorded, "input_ids");
    let found = floats(&ours, "logits");
    let width = found.len() / ids.len();
    let rows: Vec<&[f32]> = found.chunks_exact(width).collect();

    let expected = floats(&recorded, "logits");
    let positions = integers(&recorded, "positions");
    assert_eq!(expected.len(), positions.len() * width, "{name}");
    for (position, expected) in positions.iter().zip(expected.chunks_exact(width)) {
        let differences = expected.iter().zip(rows[*position]).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0, f32::max);
        assert!(worst < TOLERANCE, "{name}: {worst} at {position}");
    }
    // Every token that transformers generated is our most likely one, or as likely as that.
    let window = ModelConfig::read(folder)
        .unwrap()
        .window
        .map_or(0, |window| window.size);
    let prompt = integers(&recorded, "prompt_tokens")[0];
    let least = if window > 0 { 4 * window } else { 64 };
    assert!(ids.len() - prompt >= least, "{name}");
    for position in prompt..ids.len() {
        let row = rows[position - 1];
        let best = row.iter().copied().fold(f32::MIN, f32::max);
        assert!(best - row[ids[position]] < 2.0 * TOLERANCE, "{name}: at {position}");
    }
}

#[test]
fn what_stock_transformers_generates_is_ours() {
    let cases: Value = serde_json::from_slice(&std::fs::read(recordings().join("cases.json")).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let folder = convert(case, place.path());
        check_what_caches_read(name, &folder);
        check_recording(name, &folder, place.path());
    }
}
