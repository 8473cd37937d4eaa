//! Folders and weights that no model can be made of: one message that says what they are and what to do.

use serde_json::json;

use crate::fixture::{Folder, Model, assert_says};

/// A model folder with these files in the place of its weights.
fn without_weights(files: &[&str]) -> Folder {
    let folder = Model::llama().save();
    folder.remove("model.safetensors");
    files.iter().for_each(|name| folder.put(name, "{}"));
    folder
}

#[test]
fn weights_of_other_programs_and_names() {
    for (files, says) in [
        (&[][..], &["model.safetensors", "model.safetensors.index.json"][..]),
        (&["adapter_config.json"], &["adapter", "merge_and_unload"]),
        (&["adapter_model.safetensors"], &["adapter", "merge_and_unload"]),
        (&["pytorch_model.bin"], &["PyTorch", "safe_serialization"]),
        (
            &["pytorch_model-00001-of-00002.bin"],
            &["PyTorch", "safe_serialization"],
        ),
        (
            &["model-00001-of-00002.safetensors"],
            &["model.safetensors.index.json", "download"],
        ),
        (
            &["consolidated.safetensors", "params.json"],
            &["consolidated", "model.safetensors"],
        ),
        (&["weights.safetensors"], &["weights.safetensors", "rename"]),
        (&["pytorch_model.safetensors"], &["safetensors"]),
        (&["model.fp16.safetensors"], &["model.fp16.safetensors", "rename"]),
        (&["model.gguf"], &["model.gguf is no GGUF file", "bytes"]),
        (&["tf_model.h5"], &["TensorFlow", "save"]),
        (&["flax_model.msgpack"], &["Flax", "save"]),
    ] {
        assert_says(&without_weights(files).error(), says);
    }
}

#[test]
fn folders_without_a_configuration() {
    let base = json!({"base_model_name_or_path": "org/base"}).to_string();
    for (name, contents, says) in [
        (
            "adapter_config.json",
            base.as_str(),
            &["adapter for org/base", "merge_and_unload"][..],
        ),
        ("adapter_model.safetensors", "", &["adapter", "merge_and_unload"]),
        ("model.gguf", "GGUF", &["model.gguf is no GGUF file", "bytes"]),
        ("params.json", "{}", &["params.json", "Hugging Face format"]),
        ("consolidated.00.pth", "", &["consolidated", "Hugging Face format"]),
        ("notes.txt", "", &["config.json", "beside its weights"]),
    ] {
        let folder = Folder::empty();
        folder.put(name, contents);
        assert_says(&folder.error(), says);
    }
    let folder = Folder::empty();
    for name in ["epoch-1", "epoch-2", "logs"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder.put("epoch-1/config.json", "{}");
    folder.put("epoch-2/config.json", "{}");
    let error = folder.error();
    assert_says(&error, &["epoch-1", "epoch-2", "give that folder"]);
    assert!(!error.contains("logs"), "{error}");
}

#[test]
fn files_that_stand_in_for_others() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 269060552\n";
    for (contents, says) in [
        (pointer.as_bytes(), &["git LFS pointer", "git lfs pull"][..]),
        (b"../../blobs/0123456789abcdef", &["link", "copy"]),
        (
            b"<!DOCTYPE html><html><body>Sign in</body></html>",
            &["web page", "token"],
        ),
        (b"\n<html>", &["web page"]),
        (b"GGUF\x03\0\0\0\0\0\0\0", &["GGUF file"]),
        (b"PK\x03\x04 archive/data.pkl", &["pickle", "safe_serialization"]),
        (b"\xff\xfe{\0}\0", &["UTF-16", "UTF-8"]),
    ] {
        for name in ["config.json", "model.safetensors"] {
            let folder = Model::llama().save();
            folder.put(name, contents);
            assert_says(&folder.error(), says);
            assert_says(&folder.error(), &[name]);
        }
        let folder = without_weights(&[]);
        folder.put("model.safetensors.index.json", contents);
        assert_says(&folder.error(), says);
    }
}

#[test]
fn weights_that_were_not_gathered() {
    let mut model = Model::llama();
    for entry in &mut model.tensors {
        entry.shape = vec![0];
        entry.values.clear();
    }
    assert_says(&model.save().error(), &["ZeRO-3", "zero_to_fp32.py"]);
}

#[test]
fn tensors_of_other_kinds_of_checkpoint() {
    for (name, shape, says) in [
        (
            "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
            [4, 32],
            &["adapter", "merge_and_unload"][..],
        ),
        (
            "model.layers.0.self_attn.q_proj.base_layer.weight",
            [64, 32],
            &["adapter", "merge_and_unload"],
        ),
        (
            "model.layers.0.mlp.up_proj.qweight",
            [4, 24],
            &["quantised", "unquantised"],
        ),
        (
            "model.layers.0.mlp.up_proj.weight_packed",
            [4, 24],
            &["quantised", "unquantised"],
        ),
        (
            "tok_embeddings.weight",
            [40, 32],
            &["tok_embeddings", "Hugging Face format"],
        ),
        (
            "model.visual.patch_embed.proj.weight",
            [4, 4],
            &["visual", "several kinds of input"],
        ),
        (
            "vision_tower.proj.weight",
            [4, 4],
            &["vision_tower", "several kinds of input"],
        ),
    ] {
        let mut model = Model::llama();
        model.add(name, &shape);
        assert_says(&model.save().error(), says);
    }
}

#[test]
fn a_head_without_its_model() {
    let mut model = Model::llama();
    model.tensors.clear();
    model.add("v_head.summary.weight", &[1, 32]);
    model.add("v_head.summary.bias", &[1]);
    assert_says(&model.save().error(), &["a head alone", "whole language model"]);
}

#[test]
fn infinity_says_where_and_what_to_do() {
    let mut model = Model::llama();
    let name = "model.layers.1.mlp.down_proj.weight";
    let entry = model.tensors.iter_mut().find(|entry| entry.name == name).unwrap();
    entry.values[7] = f32::NEG_INFINITY;
    assert_says(&model.save().error(), &[name, "-inf", "element 7", "bf16"]);
}
