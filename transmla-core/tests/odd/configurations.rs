//! table.json: configurations with keys left out, null, nested, in two spellings or of another family.

use serde_json::Value;

use crate::fixture::{Folder, Model, difference, logits, read_json, recorded};

fn texts(case: &Value, key: &str) -> Vec<String> {
    let list = case[key].as_array().into_iter().flatten();
    list.map(|text| text.as_str().unwrap().to_owned()).collect()
}

fn folder(case: &Value) -> Folder {
    let unset = texts(case, "unset");
    let unset: Vec<&str> = unset.iter().map(String::as_str).collect();
    let mut model = Model::new(case["family"].as_str().unwrap(), &case["set"], &unset);
    texts(case, "drop").iter().for_each(|part| model.drop_all(part));
    for added in case["add"].as_array().into_iter().flatten() {
        let shape: Vec<usize> = added[1]
            .as_array()
            .unwrap()
            .iter()
            .map(|n| n.as_u64().unwrap() as usize)
            .collect();
        model.add(added[0].as_str().unwrap(), &shape);
    }
    model.save()
}

/// What is wrong with a case, if anything is, and the distance of its logits.
fn check(case: &Value) -> Result<f32, String> {
    let name = case["name"].as_str().unwrap();
    let folder = folder(case);
    let says = texts(case, "says");
    if !says.is_empty() {
        return match logits(folder.path()) {
            Ok(_) => Err(format!("{name}: runs")),
            Err(error) => {
                let error = error.to_string();
                match says.iter().find(|word| !error.contains(*word)) {
                    Some(word) => Err(format!("{name}: no {word:?} in: {error}")),
                    None => Ok(0.0),
                }
            }
        };
    }
    let like = case["like"].as_str().unwrap_or(name);
    let expected = recorded(like).ok_or_else(|| format!("{name}: nothing is recorded"))?;
    let (found, _) = logits(folder.path()).map_err(|error| format!("{name}: {error}"))?;
    let worst = difference(&found, &expected);
    match worst < 5e-4 {
        true => Ok(worst),
        false => Err(format!("{name}: largest difference {worst}")),
    }
}

#[test]
fn every_case_is_what_transformers_makes_of_it() {
    let table = read_json("table.json");
    let cases = table["cases"].as_array().unwrap();
    let mut worst = 0.0f32;
    let mut wrong = Vec::new();
    for case in cases {
        match check(case) {
            Ok(distance) => worst = worst.max(distance),
            Err(problem) => wrong.push(problem),
        }
    }
    println!("{} cases, largest difference {worst:.1e}", cases.len());
    assert!(cases.len() > 200);
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

/// The comparison would notice: cases that are to differ do.
#[test]
fn recordings_differ_where_they_should() {
    for (one, other) in [
        ("llama: as it is", "theta beside"),
        ("theta in rope_scaling and beside", "llama: as it is"),
        ("mistral: as it is", "mistral: window"),
        ("mistral: foreign switch off", "mistral: window null"),
        ("qwen2: window on all layers", "qwen2: window from layer 1"),
        ("qwen2: window off", "qwen2: window on all layers"),
        ("gemma2: as it is", "gemma2: every key of its own left out"),
        ("smollm3: as it is", "smollm3: interval left out"),
        ("smollm3: as it is", "smollm3: windows where there are no positions"),
        ("granite: as it is", "granite: every key of its own left out"),
        ("olmo2: as it is", "olmo2: as many key heads as query heads"),
        ("olmo2: as it is", "olmo2: biases"),
        ("mixtral: as it is", "mixtral: epsilon and theta left out"),
        ("qwen3_moe: as it is", "qwen3_moe: shares normalised"),
        ("qwen3_moe: as it is", "qwen3_moe: an MLP in the second layer"),
        ("qwen3_moe: experts in every second layer", "qwen3_moe: MLPs alone"),
        ("qwen3_moe: as it is", "qwen3_moe: window"),
        ("qwen2_moe: as it is", "qwen2_moe: no biases"),
        ("qwen2_moe: as it is", "qwen2_moe: windows"),
        ("qwen2_moe: windows", "qwen2_moe: window in front of layer 1"),
        ("yarn, type in rope_scaling", "yarn, original context inside and beside"),
        ("linear, type in rope_scaling", "dynamic, type in rope_scaling"),
        ("own head beside a tied one", "the head alone of a tied model"),
        ("no bias of o_proj", "llama: biases"),
    ] {
        let distance = difference(&recorded(one).unwrap(), &recorded(other).unwrap());
        assert!(distance > 5e-3, "{one} and {other}: {distance}");
    }
}

/// Dynamic scaling is plain RoPE up to the context and another behind it, which is refused.
#[test]
fn dynamic_scaling_ends_at_the_context() {
    use burn::tensor::Device;
    use transmla_core::{Decoder, KvCache, LayeredModel, Residency, TokenBatch};

    let rope = serde_json::json!({"rope_scaling": {"type": "dynamic", "factor": 2.0}, "max_position_embeddings": 12});
    let folder = Model::new("llama", &rope, &[]).save();
    let model = Decoder::open(folder.path(), &Device::flex(), Residency::Streamed).unwrap();
    let tokens = |length: usize| TokenBatch::from_ids(vec![3; length], 1, length).unwrap();
    model.logits(&tokens(12), None).unwrap();
    let error = model.logits(&tokens(13), None).unwrap_err().to_string();
    assert!(
        error.contains("dynamic") && error.contains("13") && error.contains("12"),
        "{error}"
    );
    let mut cache = KvCache::new(model.config(), 16);
    model.logits(&tokens(11), Some(&mut cache)).unwrap();
    model.logits(&tokens(1), Some(&mut cache)).unwrap();
    assert!(model.logits(&tokens(1), Some(&mut cache)).is_err());
    assert_eq!(cache.tokens(), 12);
}
