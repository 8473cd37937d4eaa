//! Models in GGUF files: the logits of the safetensors that they are made from, by the layout rules of llama.cpp's converter.

use std::collections::BTreeMap;
use std::f64::consts::TAU;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_core::checkpoint::{GgufTensor, GgufValue, GgufWriter, read_input_ids};
use transmla_core::config::RopeScaling;
use transmla_core::model::model_tensors;
use transmla_core::{Checkpoint, Decoder, ModelConfig, Residency, StorageDtype};

use crate::fixture::difference;

/// A tensor with ggml's name.
struct Tensor {
    name: String,
    shape: Vec<usize>,
    values: Vec<f32>,
}

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

fn architecture(config: &ModelConfig) -> &'static str {
    match config.model_type.as_str() {
        "llama" | "mistral" | "mixtral" => "llama",
        "qwen2" => "qwen2",
        "qwen3" => "qwen3",
        "qwen2_moe" => "qwen2moe",
        "qwen3_moe" => "qwen3moe",
        "gemma2" => "gemma2",
        "gemma3_text" => "gemma3",
        "phi3" => "phi3",
        other => panic!("{other}"),
    }
}

fn ggml_name(config: &ModelConfig, name: &str) -> String {
    match name {
        "model.embed_tokens.weight" => return "token_embd.weight".into(),
        "model.norm.weight" => return "output_norm.weight".into(),
        "lm_head.weight" => return "output.weight".into(),
        _ => {}
    }
    let (layer, rest) = name.strip_prefix("model.layers.").unwrap().split_once('.').unwrap();
    let (module, kind) = rest.rsplit_once('.').unwrap();
    let gemma = config.model_type.starts_with("gemma");
    let fused = config.model_type == "phi3";
    let part = match module {
        "self_attn.q_proj" | "self_attn.k_proj" | "self_attn.v_proj" if fused => "attn_qkv",
        "mlp.gate_proj" if fused => "ffn_up",
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if gemma => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" => "attn_output",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate_proj" => "ffn_gate",
        "mlp.up_proj" => "ffn_up",
        "mlp.down_proj" => "ffn_down",
        "block_sparse_moe.gate" | "mlp.gate" => "ffn_gate_inp",
        "mlp.shared_expert_gate" => "ffn_gate_inp_shexp",
        "mlp.shared_expert.gate_proj" => "ffn_gate_shexp",
        "mlp.shared_expert.up_proj" => "ffn_up_shexp",
        "mlp.shared_expert.down_proj" => "ffn_down_shexp",
        other => match other.rsplit_once('.').unwrap().1 {
            "w1" | "gate_proj" => "ffn_gate_exps",
            "w3" | "up_proj" => "ffn_up_exps",
            "w2" | "down_proj" => "ffn_down_exps",
            _ => panic!("{other}"),
        },
    };
    format!("blk.{layer}.{part}.{kind}")
}

/// Rows of rotary pairs that are half a head apart, side by side.
fn interleaved(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let (width, head) = (values.len() / rows, rows / heads);
    let row = |row: usize| {
        let (first, within) = (row / head * head, row % head);
        first + within / 2 + within % 2 * (head / 2)
    };
    (0..rows)
        .flat_map(|to| values[row(to) * width..(row(to) + 1) * width].to_vec())
        .collect()
}

fn tensors(config: &ModelConfig, checkpoint: &Checkpoint) -> Vec<Tensor> {
    let mut out: BTreeMap<String, Tensor> = BTreeMap::new();
    let grouped = config.grouped().unwrap();
    // No key says what scores are divided by, so that the queries take the quotient to the usual scale.
    let factor = config.score_scale * (grouped.head_dim as f64).sqrt();
    for spec in model_tensors(config) {
        let mut values = checkpoint.values(&spec.name, &spec.shape).unwrap();
        let heads = match spec.name.contains(".q_proj.") {
            true => config.num_attention_heads,
            false => grouped.num_key_value_heads,
        };
        if architecture(config) == "llama" && (spec.name.contains(".q_proj.") || spec.name.contains(".k_proj.")) {
            values = interleaved(&values, heads, spec.shape[0]);
        }
        if config.model_type.starts_with("gemma") && spec.name.ends_with("norm.weight") {
            values.iter_mut().for_each(|value| *value += 1.0);
        }
        let queries = if config.family.qk_norm.is_there() {
            ".q_norm."
        } else {
            ".q_proj."
        };
        if factor != 1.0 && spec.name.contains(queries) {
            values
                .iter_mut()
                .for_each(|value| *value = (f64::from(*value) * factor) as f32);
        }
        let name = ggml_name(config, &spec.name);
        let experts = name.contains("_exps.");
        let tensor = out.entry(name.clone()).or_insert_with(|| Tensor {
            name,
            shape: if experts {
                [&[0][..], &spec.shape].concat()
            } else {
                [&[0][..], &spec.shape[1..]].concat()
            },
            values: Vec::new(),
        });
        // Matrices of experts lie side by side, those that are stored as one below each other.
        tensor.shape[0] += if experts { 1 } else { spec.shape[0] };
        tensor.values.extend(values);
    }
    // llama.cpp's converter leaves out dimensions of one.
    for tensor in out.values_mut().filter(|tensor| tensor.name.contains("_inp_shexp")) {
        tensor.shape.remove(0);
    }
    if let RopeScaling::Llama3 { .. } = config.rope.of(0).scaling {
        let rope = config.rope.of(0);
        let plain = (0..rope.dim / 2).map(|j| rope.theta.powf(-2.0 * j as f64 / rope.dim as f64));
        let values: Vec<f32> = plain
            .zip(rope.frequencies())
            .map(|(plain, scaled)| (plain / scaled) as f32)
            .collect();
        let name = "rope_freqs.weight".to_owned();
        out.insert(
            name.clone(),
            Tensor {
                name,
                shape: vec![values.len()],
                values,
            },
        );
    }
    out.into_values().collect()
}

fn keys(config: &ModelConfig) -> Vec<(String, GgufValue)> {
    let name = architecture(config);
    let grouped = config.grouped().unwrap();
    let mut keys = vec![("general.architecture".to_owned(), GgufValue::Text(name.into()))];
    let mut add = |key: &str, value: GgufValue| keys.push((format!("{name}.{key}"), value));
    for (key, size) in [
        ("block_count", config.num_hidden_layers),
        ("context_length", config.max_position_embeddings),
        ("embedding_length", config.hidden_size),
        ("feed_forward_length", config.intermediate_size),
        ("attention.head_count", config.num_attention_heads),
        ("attention.head_count_kv", grouped.num_key_value_heads),
        ("attention.key_length", grouped.head_dim),
        ("attention.value_length", grouped.head_dim),
    ] {
        add(key, GgufValue::U32(size as u32));
    }
    add(
        "attention.layer_norm_rms_epsilon",
        GgufValue::F32(config.rms_norm_eps as f32),
    );
    let full = (0..config.num_hidden_layers).find(|layer| !config.window.as_ref().is_some_and(|w| w.covers(*layer)));
    let rope = config.rope.of(full.unwrap_or(0));
    add("rope.freq_base", GgufValue::F32(rope.theta as f32));
    if let RopeScaling::Linear { factor } = rope.scaling {
        add("rope.scaling.type", GgufValue::Text("linear".into()));
        add("rope.scaling.factor", GgufValue::F32(factor as f32));
    }
    if let Some(window) = &config.window {
        add("attention.sliding_window", GgufValue::U32(window.size as u32));
        if name == "gemma3" {
            let pattern = (0..config.num_hidden_layers).map(|layer| i32::from(window.covers(layer)));
            add("attention.sliding_window_pattern", GgufValue::Ints(pattern.collect()));
        }
    }
    if let Some(experts) = &config.experts {
        add("expert_count", GgufValue::U32(experts.count as u32));
        add("expert_used_count", GgufValue::U32(experts.per_token as u32));
        if experts.rule.by_keys {
            add("expert_feed_forward_length", GgufValue::U32(experts.width as u32));
        }
        if let Some(width) = experts.shared_width {
            add("expert_shared_feed_forward_length", GgufValue::U32(width as u32));
        }
    }
    for (key, cap) in [
        ("attn_logit_softcapping", config.score_softcap),
        ("final_logit_softcapping", config.logit_softcap),
    ] {
        if let Some(cap) = cap {
            add(key, GgufValue::F32(cap as f32));
        }
    }
    keys
}

fn write(target: &Path, keys: &[(String, GgufValue)], tensors: &[&Tensor], dtype: StorageDtype) {
    let described = tensors.iter().map(|tensor| GgufTensor {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        // As converters do: what is no matrix stays as it is.
        dtype: if tensor.shape.len() > 1 {
            dtype
        } else {
            StorageDtype::F32
        }
        .into(),
    });
    let mut writer = GgufWriter::create(target, keys, described.collect(), true).unwrap();
    for tensor in tensors {
        writer.write(&tensor.name, &tensor.values).unwrap();
    }
    writer.commit().unwrap();
}

fn logits(model: &Path, family: &Path, residency: Residency) -> Vec<f32> {
    let tokens = read_input_ids(&family.join("reference.safetensors")).unwrap();
    let model = Decoder::open(model, &Device::flex(), residency).unwrap();
    model.logits(&tokens, None).unwrap().into_data().iter::<f32>().collect()
}

const FAMILIES: [&str; 12] = [
    "llama2-mha",
    "llama3.2",
    "mistral",
    "mistral-window",
    "mixtral",
    "qwen2.5",
    "qwen3",
    "qwen2-moe",
    "qwen3-moe",
    "gemma2",
    "gemma3",
    "phi3",
];

#[test]
fn every_family_is_read_as_its_safetensors() {
    let place = tempfile::tempdir().unwrap();
    for name in FAMILIES {
        let folder = family(name);
        let (config, checkpoint) = (ModelConfig::read(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
        let file = place.path().join(format!("{name}.gguf"));
        let all = tensors(&config, &checkpoint);
        write(
            &file,
            &keys(&config),
            &all.iter().collect::<Vec<_>>(),
            StorageDtype::F32,
        );
        let read = ModelConfig::read(&file).unwrap();
        assert_eq!(read.notes, Vec::<String>::new(), "{name}");
        assert_eq!(read.attention, config.attention, "{name}");
        assert_eq!(read.rms_norm_eps, config.rms_norm_eps, "{name}");
        assert_eq!(read.tie_word_embeddings, config.tie_word_embeddings, "{name}");
        assert_eq!(read.experts, config.experts, "{name}");
        for layer in 0..config.num_hidden_layers {
            let (one, other) = (read.attention_parameters(layer), config.attention_parameters(layer));
            assert_eq!((one.window, one.softcap), (other.window, other.softcap), "{name}");
            let ropes = read
                .rope
                .of(layer)
                .frequencies()
                .into_iter()
                .zip(config.rope.of(layer).frequencies());
            for (one, other) in ropes {
                assert!((one / other - 1.0).abs() < 1e-4 && one < TAU, "{name}: {one} {other}");
            }
        }
        let expected = logits(&folder, &folder, Residency::Streamed);
        let size = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
        // The scaling of Llama 3 is recovered from factors in single precision.
        let bound = if name == "llama3.2" { 1e-4 } else { 1e-5 };
        for residency in [Residency::Streamed, Residency::Loaded] {
            let worst = difference(&expected, &logits(&file, &folder, residency));
            println!("{name}, {residency:?}: largest difference {worst:.1e} of {size}");
            assert!(worst < bound * size, "{name}, {residency:?}: {worst} of {size}");
        }
    }
}

/// A model in two files, and the same in a folder of its own.
#[test]
fn a_model_may_be_split() {
    let place = tempfile::tempdir().unwrap();
    let folder = family("mixtral");
    let (config, checkpoint) = (ModelConfig::read(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
    let all = tensors(&config, &checkpoint);
    let (one, other): (Vec<&Tensor>, Vec<&Tensor>) = all.iter().partition(|tensor| tensor.name.contains("blk.1."));
    let split = |number: u32| {
        [("no", number), ("count", 2), ("tensors.count", all.len() as u32)]
            .map(|(key, value)| (format!("split.{key}"), GgufValue::U32(value)))
    };
    let name = |number: u32| place.path().join(format!("m-0000{number}-of-00002.gguf"));
    write(
        &name(1),
        &[&keys(&config)[..], &split(0)].concat(),
        &one,
        StorageDtype::Bf16,
    );
    write(&name(2), &split(1), &other, StorageDtype::Bf16);
    let expected = logits(&folder, &folder, Residency::Streamed);
    let size = expected.iter().fold(0.0, |most: f32, value| most.max(value.abs()));
    for model in [name(1), name(2), place.path().to_path_buf()] {
        let worst = difference(&expected, &logits(&model, &folder, Residency::Streamed));
        assert!(worst < 1e-5 * size, "{}: {worst} of {size}", model.display());
    }
    std::fs::remove_file(name(2)).unwrap();
    let error = Decoder::open(&name(1), &Device::flex(), Residency::Streamed)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("m-00002-of-00002.gguf is missing") && error.contains("2 files"),
        "{error}"
    );
}

/// What a file asks for and no family has is refused by name.
#[test]
fn what_is_not_understood_is_refused() {
    let place = tempfile::tempdir().unwrap();
    let folder = family("llama2-mha");
    let (config, checkpoint) = (ModelConfig::read(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
    let file = place.path().join("m.gguf");
    let error = |more: &[(&str, GgufValue)], without: &str, tensor: Option<&str>| {
        let mut all = tensors(&config, &checkpoint);
        all.extend(tensor.map(|name| Tensor {
            name: name.into(),
            shape: vec![8],
            // Rotary factors that rise without an end, as those of "longrope" do.
            values: (0..8).map(|j| 1.0 + 0.2 * (j * j) as f32).collect(),
        }));
        let mut keys = keys(&config);
        keys.retain(|(key, _)| !key.ends_with(without) && more.iter().all(|(name, _)| name != key));
        keys.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
        write(&file, &keys, &all.iter().collect::<Vec<_>>(), StorageDtype::F32);
        Decoder::open(&file, &Device::flex(), Residency::Streamed)
            .unwrap_err()
            .to_string()
    };
    let says = |message: String, words: &[&str]| {
        for word in words {
            assert!(message.contains(word), "no {word:?} in {message}");
        }
    };
    let text = |text: &str| GgufValue::Text(text.into());
    says(
        error(&[("general.architecture", text("mamba"))], "\0", None),
        &["mamba", "llama, qwen2", "safetensors"],
    );
    says(
        error(&[("general.type", text("adapter"))], "\0", None),
        &["no model", "adapter"],
    );
    says(error(&[], "block_count", None), &["llama.block_count is missing"]);
    says(
        error(&[("llama.rope.dimension_count", GgufValue::U32(8))], "\0", None),
        &["rope.dimension_count", "8"],
    );
    says(
        error(&[("llama.logit_scale", GgufValue::F32(0.5))], "\0", None),
        &["logit_scale is 0.5"],
    );
    says(
        error(&[("llama.rope.scaling.type", text("longrope"))], "\0", None),
        &["longrope", "linear, yarn"],
    );
    says(
        error(&[("llama.expert_count", GgufValue::U32(2))], "\0", None),
        &["expert_used_count is missing"],
    );
    says(
        error(&[], "\0", Some("blk.0.attn_sinks.weight")),
        &["blk.0.attn_sinks.weight", "safetensors"],
    );
    says(
        error(&[], "\0", Some("rope_freqs.weight")),
        &["rope_freqs.weight", "Llama 3"],
    );
    let layers = GgufValue::Ints(vec![6, 6, 3]);
    says(
        error(&[("llama.attention.head_count", layers)], "\0", None),
        &["head_count differs from layer to layer"],
    );
}
