//! Folders whose tensors go by other names, lie twice, or are more than the model needs.

use serde_json::json;
use transmla_core::{Checkpoint, ModelConfig, StorageDtype};

use crate::fixture::{Entry, Folder, Model, assert_says, difference};

/// A name that a wrapper gives, from the published one.
type Rename = fn(&str) -> String;

/// Names that wrappers give.
const WRAPPERS: [(&str, Rename); 9] = [
    ("torch.compile", |name| format!("_orig_mod.{name}")),
    ("data parallel", |name| format!("module.{name}")),
    ("compiled in parallel", |name| format!("module._orig_mod.{name}")),
    ("compiled layers", |name| match name.split_once(".self_attn") {
        Some((layer, rest)) => format!("{layer}._orig_mod.self_attn{rest}"),
        None => name.into(),
    }),
    ("FSDP", |name| {
        let inner = name.replace(".mlp", "._fsdp_wrapped_module._checkpoint_wrapped_module.mlp");
        format!("_fsdp_wrapped_module.{inner}")
    }),
    ("an attribute", |name| format!("model.{name}")),
    ("trl's value head", |name| format!("pretrained_model.{name}")),
    ("merged adapter", |name| format!("base_model.model.{name}")),
    ("base model alone, with a head", |name| {
        name.strip_prefix("model.").unwrap_or(name).into()
    }),
];

#[test]
fn names_of_wrappers_are_undone() {
    let (expected, _) = Model::llama().save().logits();
    for (wrapper, rename) in WRAPPERS {
        let folder = Model::llama().rename(rename).save();
        assert_eq!(folder.logits().0, expected, "{wrapper}");
        let checkpoint = Checkpoint::open(folder.path()).unwrap();
        assert!(
            checkpoint.contains("model.norm.weight") && checkpoint.contains("lm_head.weight"),
            "{wrapper}"
        );
        assert_eq!(checkpoint.names().count(), Model::llama().tensors.len(), "{wrapper}");
    }
}

#[test]
fn a_tied_base_model_alone_is_whole() {
    let tied = Model::new("llama", &json!({"tie_word_embeddings": true}), &[]);
    let (expected, _) = tied.save().logits();
    let base = tied.rename(|name| name.strip_prefix("model.").unwrap().to_owned());
    assert_eq!(base.save().logits().0, expected);
}

#[test]
fn a_name_that_is_there_wrapped_and_not() {
    let mut model = Model::llama();
    let mut copy = Entry::new("model.norm.weight", &[32]);
    copy.name = "_orig_mod.model.norm.weight".into();
    model.tensors.push(copy);
    let (expected, _) = Model::llama().save().logits();
    assert_eq!(model.save().logits().0, expected);
    model.tensors.last_mut().unwrap().values[3] += 1.0;
    assert_says(
        &model.save().error(),
        &["model.norm.weight", "_orig_mod.model.norm.weight", "differ"],
    );
}

/// Two shards, with `model.norm.weight` in both and the index naming either.
fn two_shards(second: Entry, named: usize) -> Folder {
    let model = Model::llama();
    let (first, rest) = model.tensors.split_at(12);
    let mut shards = [first.to_vec(), rest.to_vec()];
    let holder = usize::from(!first.iter().any(|entry| entry.name == second.name));
    shards[1 - holder].push(second);
    let index: Vec<(&str, usize)> = model
        .tensors
        .iter()
        .enumerate()
        .map(|(place, entry)| match entry.name.as_str() {
            "model.norm.weight" => ("model.norm.weight", named),
            name => (name, usize::from(place >= 12)),
        })
        .collect();
    model.save_shards(&shards, &index)
}

#[test]
fn a_tensor_in_two_shards_must_be_one() {
    let (expected, _) = Model::llama().save().logits();
    for named in [0, 1] {
        let copy = Entry::new("model.norm.weight", &[32]);
        assert_eq!(two_shards(copy.clone(), named).logits().0, expected);
        let mut other = copy.clone();
        other.values[31] += 0.5;
        assert_says(
            &two_shards(other, named).error(),
            &["model.norm.weight", "two shards", "differ"],
        );
        let mut rounded = copy;
        rounded.dtype = StorageDtype::Bf16;
        assert_says(
            &two_shards(rounded, named).error(),
            &["model.norm.weight", "two shards", "differ"],
        );
    }
}

#[test]
fn an_index_may_list_what_is_no_longer_stored() {
    let model = Model::new("llama", &json!({"tie_word_embeddings": true}), &[]);
    let (expected, _) = model.save().logits();
    let mut index: Vec<(&str, usize)> = model.tensors.iter().map(|entry| (entry.name.as_str(), 0)).collect();
    index.push(("lm_head.weight", 0));
    index.push(("model.layers.0.self_attn.rotary_emb.inv_freq", 0));
    let shards = [model.tensors.clone()];
    assert_eq!(model.save_shards(&shards, &index).logits().0, expected);
    // Where it is needed it is missed.
    let mut untied = model.clone();
    untied.config.insert("tie_word_embeddings".into(), json!(false));
    assert_says(
        &untied.save_shards(&shards, &index).error(),
        &["lm_head.weight", "not in"],
    );
    // So is a tensor of a layer that the model has; one of a layer that it has not is nobody's.
    index.push(("model.layers.77.mlp.up_proj.weight", 0));
    assert_eq!(model.save_shards(&shards, &index).logits().0, expected);
    let mut shorter = model.tensors.clone();
    shorter.retain(|entry| entry.name != "model.layers.0.mlp.up_proj.weight");
    assert_says(
        &model.save_shards(&[shorter], &index).error(),
        &["model.layers.0.mlp.up_proj.weight", "not in"],
    );
}

#[test]
fn an_embedding_with_more_rows_than_the_vocabulary() {
    for (family, tied) in [("llama", true), ("llama", false), ("gemma2", true)] {
        let changes = json!({"tie_word_embeddings": tied, "vocab_size": 48});
        let whole = Model::new(family, &changes, &[]);
        let (expected, rows) = whole.save().logits();
        assert_eq!(rows, 48);
        let mut padded = whole;
        padded.config.insert("vocab_size".into(), json!(40));
        let folder = padded.save();
        assert_eq!(folder.logits(), (expected, 48));
        let config = ModelConfig::read(folder.path()).unwrap();
        assert_says(&config.notes.concat(), &["48 rows", "vocab_size 40"]);
    }
    // One that is padded and a head that is not do not belong together.
    let mut model = Model::llama();
    model.drop_all("embed_tokens");
    model.add("model.embed_tokens.weight", &[48, 32]);
    assert_says(&model.save().error(), &["lm_head.weight", "[48, 32]", "[40, 32]"]);
    // Too few are an error as before.
    let mut model = Model::llama();
    model.config.insert("vocab_size".into(), json!(41));
    assert_says(
        &model.save().error(),
        &["model.embed_tokens.weight", "[41, 32]", "[40, 32]"],
    );
}

#[test]
fn every_tensor_in_a_number_format_of_its_own() {
    let mut model = Model::llama();
    let (expected, _) = model.save().logits();
    for entry in model.tensors.iter_mut().step_by(2) {
        entry.dtype = StorageDtype::Bf16;
    }
    let distance = difference(&model.save().logits().0, &expected);
    assert!(distance > 0.0 && distance < 0.2, "{distance}");
}

#[test]
fn files_beside_the_weights_that_are_not_the_models() {
    let folder = Model::llama().save();
    let (expected, _) = folder.logits();
    folder.put("consolidated.safetensors", b"other names");
    folder.put("params.json", "{}");
    folder.put("tokenizer.model.v3", "none");
    folder.put(
        "model.safetensors.index.json",
        r#"{"weight_map": {"old": "gone.safetensors"}}"#,
    );
    std::fs::create_dir(folder.path().join("original")).unwrap();
    folder.put("original/params.json", "{}");
    assert_eq!(folder.logits().0, expected);
}

#[test]
fn an_adapter_beside_a_model_is_told() {
    let folder = Model::llama().save();
    let (expected, _) = folder.logits();
    folder.put("adapter_config.json", r#"{"base_model_name_or_path": "org/base"}"#);
    assert_eq!(folder.logits().0, expected);
    let config = ModelConfig::read(folder.path()).unwrap();
    assert_says(&config.notes.concat(), &["adapter", "not applied"]);
}

#[test]
fn byte_order_marks() {
    let model = Model::llama();
    let (expected, _) = model.save().logits();
    let marked = |text: String| [b"\xef\xbb\xbf", text.as_bytes()].concat();
    let index: Vec<(&str, usize)> = model.tensors.iter().map(|entry| (entry.name.as_str(), 0)).collect();
    let folder = model.save_shards(std::slice::from_ref(&model.tensors), &index);
    for name in ["config.json", "model.safetensors.index.json"] {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        folder.put(name, marked(text));
    }
    assert_eq!(folder.logits().0, expected);
}

#[cfg(unix)]
#[test]
fn a_cached_repository_of_links() {
    use transmla_core::hub::{HubOptions, model_folder};

    let model = Model::llama().save();
    let cache = Folder::empty();
    let root = cache.path().join("models--org--name");
    let snapshot = root.join("snapshots/0123456789abcdef");
    for folder in ["blobs", "refs", "snapshots/0123456789abcdef"] {
        std::fs::create_dir_all(root.join(folder)).unwrap();
    }
    std::fs::write(root.join("refs/main"), "0123456789abcdef").unwrap();
    for (blob, name) in ["config.json", "model.safetensors"].iter().enumerate() {
        std::fs::copy(model.path().join(name), root.join(format!("blobs/{blob}"))).unwrap();
        std::os::unix::fs::symlink(format!("../../blobs/{blob}"), snapshot.join(name)).unwrap();
    }
    let found = model_folder(root.to_str().unwrap(), "main", &HubOptions::default()).unwrap();
    assert_eq!(found, snapshot);
    assert_eq!(crate::fixture::logits(&found).unwrap().0, model.logits().0);
}
