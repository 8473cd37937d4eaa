//! Random damage: nothing that a folder holds may make the reader panic.

use proptest::prelude::*;
use transmla_checkpoint::{Checkpoint, ModelConfig};

use crate::fixture::{Folder, Model, read_everything, safetensors, with_header};

/// One change to a file.
#[derive(Debug, Clone)]
enum Change {
    Overwrite(prop::sample::Index, Vec<u8>),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, Vec<u8>),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn change() -> impl Strategy<Value = Change> {
    let place = any::<prop::sample::Index>;
    // What a header is made of, so that changes often leave it readable.
    let text = prop::sample::select(vec![
        "0",
        "9",
        "99999999999999999999",
        "-1",
        "[",
        "]",
        "{",
        "\"",
        ",",
        "F16",
        "BF16",
    ]);
    let bytes = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..9),
        text.prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop_oneof![
        (place(), bytes.clone()).prop_map(|(at, bytes)| Change::Overwrite(at, bytes)),
        place().prop_map(Change::Cut),
        (place(), bytes).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        (place(), place()).prop_map(|(a, b)| Change::Swap(a, b)),
    ]
}

fn apply(change: &Change, file: &mut Vec<u8>) {
    if file.is_empty() {
        return;
    }
    match change {
        Change::Overwrite(at, bytes) => {
            let at = at.index(file.len());
            let end = (at + bytes.len()).min(file.len());
            file[at..end].copy_from_slice(&bytes[..end - at]);
        }
        Change::Cut(at) => file.truncate(at.index(file.len())),
        Change::Insert(at, bytes) => {
            let at = at.index(file.len());
            file.splice(at..at, bytes.iter().copied());
        }
        Change::Swap(a, b) => {
            let (a, b) = (a.index(file.len()), b.index(file.len()));
            file.swap(a, b);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn random_bytes_in_place_of_weights(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let folder = Model::valid().save();
        folder.put("model.safetensors", &bytes);
        prop_assert!(read_everything(folder.path()).is_err());
    }

    #[test]
    fn random_bytes_behind_a_plausible_length(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let folder = Model::valid().save();
        let mut file = with_header("", &bytes);
        file[..8].copy_from_slice(&((bytes.len() / 2) as u64).to_le_bytes());
        folder.put("model.safetensors", &file);
        prop_assert!(read_everything(folder.path()).is_err());
    }

    /// Damage within the header: offsets, shapes, names, dtypes and braces.
    #[test]
    fn a_damaged_header(changes in prop::collection::vec(change(), 1..4)) {
        let whole = safetensors(&Model::valid().tensors);
        let length = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
        let mut header = whole[8..8 + length].to_vec();
        changes.iter().for_each(|change| apply(change, &mut header));
        let folder = Model::valid().save();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(&header);
        file.extend_from_slice(&whole[8 + length..]);
        folder.put("model.safetensors", &file);
        let _ = Checkpoint::open(folder.path()); // may be fine: not all changes are damage
        let _ = read_everything(folder.path());
    }

    /// Damage anywhere in the file. Changed weights are still weights, so some of these are valid.
    #[test]
    fn a_damaged_file(changes in prop::collection::vec(change(), 1..4)) {
        let mut file = safetensors(&Model::valid().tensors);
        changes.iter().for_each(|change| apply(change, &mut file));
        let folder = Model::valid().save();
        folder.put("model.safetensors", &file);
        let _ = read_everything(folder.path());
    }

    #[test]
    fn a_damaged_configuration(changes in prop::collection::vec(change(), 1..4)) {
        let folder = Model::valid().save();
        let mut text = std::fs::read(folder.file("config.json")).unwrap();
        changes.iter().for_each(|change| apply(change, &mut text));
        folder.put("config.json", &text);
        let _ = read_everything(folder.path());
    }

    #[test]
    fn a_damaged_index(changes in prop::collection::vec(change(), 1..4)) {
        let folder = Folder::empty();
        let model = Model::valid();
        folder.put("config.json", serde_json::Value::Object(model.config.clone()).to_string());
        folder.put("one.safetensors", safetensors(&model.tensors));
        let map: serde_json::Map<_, _> =
            model.tensors.iter().map(|t| (t.name.clone(), "one.safetensors".into())).collect();
        let mut text = serde_json::json!({"weight_map": map}).to_string().into_bytes();
        changes.iter().for_each(|change| apply(change, &mut text));
        folder.put("model.safetensors.index.json", &text);
        let _ = read_everything(folder.path());
    }

    /// Every key of a configuration set to any JSON scalar.
    #[test]
    fn any_value_of_any_key(
        key in any::<prop::sample::Index>(),
        number in any::<i64>(),
        float in any::<f64>(),
        kind in 0..6,
    ) {
        let mut config = Model::valid().config;
        for (name, value) in [
            ("max_position_embeddings", 64.into()),
            ("head_dim", 4.into()),
            ("rope_theta", 10000.0.into()),
            ("rope_scaling", serde_json::Value::Null),
            ("eos_token_id", 2.into()),
        ] {
            config.insert(name.into(), value);
        }
        let rope_type = ["default", "linear", "llama3", "yarn"][number.unsigned_abs() as usize % 4];
        let name = config.keys().nth(key.index(config.len())).unwrap().clone();
        config[&name] = match kind {
            0 => number.into(),
            1 => float.into(),
            2 => number.unsigned_abs().into(),
            3 => vec![number].into(),
            4 => number.to_string().into(),
            _ => serde_json::json!({
                "rope_type": rope_type,
                "rope_theta": float, "factor": number,
                "original_max_position_embeddings": float, "low_freq_factor": float, "high_freq_factor": number,
            }),
        };
        if let Ok(parsed) = ModelConfig::from_json(config) {
            prop_assert!(parsed.rope.of(0).frequencies().iter().all(|f| f.is_finite()));
            prop_assert!(parsed.attention.cache_numbers() > 0);
        }
    }

    /// Every key of every family's configuration set to any JSON value of another.
    #[test]
    fn any_value_of_any_key_of_any_family(
        family in any::<prop::sample::Index>(),
        key in any::<prop::sample::Index>(),
        number in any::<i64>(),
        small in 0i64..40,
        kind in 0..7,
    ) {
        let families = [
            "gemma2", "gemma3", "mixtral", "qwen3", "qwen3-moe", "qwen2-moe", "olmo2", "mimo", "mistral-window", "llama3.2",
            "deepseek-v3",
        ];
        let path = format!("../transmla-core/tests/families/{}/config.json", families[family.index(families.len())]);
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
        let mut config: serde_json::Map<String, serde_json::Value> =
            serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        let mut names: Vec<String> = config.keys().cloned().collect();
        names.extend(["layer_types", "use_sliding_window", "rope_parameters"].map(String::from));
        config.insert(names[key.index(names.len())].clone(), match kind {
            0 => number.into(),
            1 | 2 => small.into(),
            3 => (number as f64 / 7.0).into(),
            4 => vec!["full_attention"; small as usize].into(),
            5 => serde_json::json!({"rope_type": "yarn", "rope_theta": small}),
            _ => (small % 2 == 0).into(),
        });
        if let Ok(parsed) = ModelConfig::from_json(config) {
            prop_assert!(parsed.rope.of(0).frequencies().iter().all(|f| f.is_finite()));
            let parameters = parsed.attention_parameters(1);
            prop_assert!(parameters.scale.is_finite() && parameters.scale > 0.0);
            prop_assert!(parameters.window.is_none_or(|window| window > 0));
            prop_assert!(parsed.experts.is_none_or(|experts| experts.per_token <= experts.count));
        }
    }
}
