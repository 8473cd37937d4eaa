//! What a GGUF file holds is the model: read back as llama.cpp reads it, with one epsilon for all norms.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Value, json};
use transmla_convert::{GgufOptions, Quantization, Recipe, write_gguf};
use transmla_core::checkpoint::{Checkpoint, CheckpointWriter};
use transmla_core::model::{NumberFormat, RoundedModel, model_tensors};
use transmla_core::{Decoder, GgufDtype, ModelConfig, Residency, StorageDtype};

use crate::common::write_random_variant;
use crate::conversion::{compare, full_rank, run};

/// A file's numbers and tensors, the latter with their shapes, row-major.
struct Gguf {
    numbers: HashMap<String, f64>,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
    /// Number formats of the tensors.
    kinds: BTreeSet<String>,
}

/// Reads what it is asked for from the start of some bytes.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take(&mut self, count: usize) -> Vec<u8> {
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        taken.to_vec()
    }

    fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take(4).try_into().unwrap())
    }

    fn u64(&mut self) -> usize {
        u64::from_le_bytes(self.take(8).try_into().unwrap()) as usize
    }

    fn text(&mut self) -> String {
        let length = self.u64();
        String::from_utf8(self.take(length)).unwrap()
    }

    /// A value of a kind, if it is a number.
    fn value(&mut self, kind: u32) -> Option<f64> {
        match kind {
            4 | 5 => Some(f64::from(self.u32())),
            6 => Some(f64::from(f32::from_bits(self.u32()))),
            7 => Some(f64::from(self.take(1)[0])),
            8 => {
                self.text();
                None
            }
            9 => {
                let (kind, count) = (self.u32(), self.u64());
                (0..count).for_each(|_| {
                    self.value(kind);
                });
                None
            }
            kind => panic!("kind {kind}"),
        }
    }
}

fn read(path: &Path) -> Gguf {
    let file = std::fs::read(path).unwrap();
    let mut bytes = Bytes(&file[8..]);
    let (tensors, keys) = (bytes.u64(), bytes.u64());
    let mut numbers = HashMap::new();
    for _ in 0..keys {
        let (key, kind) = (bytes.text(), bytes.u32());
        if let Some(number) = bytes.value(kind) {
            numbers.insert(key, number);
        }
    }
    let mut places = Vec::new();
    for _ in 0..tensors {
        let (name, dimensions) = (bytes.text(), bytes.u32());
        let mut shape: Vec<usize> = (0..dimensions).map(|_| bytes.u64()).collect();
        shape.reverse();
        places.push((name, shape, bytes.u32(), bytes.u64()));
    }
    let data = &file[(file.len() - bytes.0.len()).next_multiple_of(32)..];
    let mut kinds = BTreeSet::new();
    let tensors = places.into_iter().map(|(name, shape, kind, offset)| {
        let plain = [StorageDtype::F32, StorageDtype::F16, StorageDtype::Bf16].map(GgufDtype::Plain);
        let blocks = [GgufDtype::Q8_0, GgufDtype::Q5_0, GgufDtype::Q6K, GgufDtype::Q4K];
        let mut all = plain.into_iter().chain(blocks);
        let dtype = all.find(|dtype| dtype.ggml_type() == kind);
        let dtype = dtype.unwrap_or_else(|| panic!("{name}: kind {kind}"));
        let length = shape.iter().product::<usize>() / dtype.block() * dtype.block_bytes();
        let mut values = Vec::new();
        dtype.decode_onto(&data[offset..offset + length], &mut values);
        kinds.insert(dtype.to_string());
        (name, (shape, values))
    });
    Gguf {
        tensors: tensors.collect(),
        numbers,
        kinds,
    }
}

/// The file as a folder of a class whose norms, those of latents too, all have the epsilon of config.json; its matrices as a
/// format holds them.
fn unpack(file: &Gguf, original: &Path, folder: &Path, format: Option<NumberFormat>) {
    let text = std::fs::read(original.join("config.json")).unwrap();
    let mut config: serde_json::Map<String, Value> = serde_json::from_slice(&text).unwrap();
    let rank = file
        .numbers
        .get("deepseek2.attention.q_lora_rank")
        .map(|rank| *rank as usize);
    config.insert("model_type".into(), json!("llamamla"));
    config.insert("use_qkv_norm".into(), json!(true));
    config.insert("q_lora_rank".into(), json!(rank));
    let eps = file.numbers["deepseek2.attention.layer_norm_rms_epsilon"];
    config.insert("rms_norm_eps".into(), json!(eps));
    let specs = model_tensors(&ModelConfig::from_json(config.clone()).unwrap());
    let mut writer = CheckpointWriter::create(folder, &specs, StorageDtype::F32, 1 << 30, false).unwrap();
    let tensor = |name: &str| {
        let (shape, mut values) = file.tensors[name].clone();
        if let Some(format) = format.filter(|_| shape.len() > 1) {
            format.round_matrix(&mut values, shape[shape.len() - 1]);
        }
        (shape, values)
    };
    for spec in &specs {
        let values = match spec.name.strip_suffix(".self_attn.kv_b_proj.weight") {
            Some(layer) => {
                let layer = layer.replace("model.layers.", "blk.");
                let (keys_shape, keys) = tensor(&format!("{layer}.attn_k_b.weight"));
                let (values_shape, values) = tensor(&format!("{layer}.attn_v_b.weight"));
                let [heads, rank, nope] = keys_shape[..] else {
                    panic!("{keys_shape:?}")
                };
                let mut both = Vec::new();
                for head in 0..heads {
                    let keys = &keys[head * rank * nope..(head + 1) * rank * nope];
                    (0..nope).for_each(|row| both.extend(keys.iter().skip(row).step_by(nope)));
                    let length = values_shape[1] * rank;
                    both.extend_from_slice(&values[head * length..(head + 1) * length]);
                }
                both
            }
            None => tensor(&name_in_file(&spec.name)).1,
        };
        writer.write(&spec.name, &values).unwrap();
    }
    let text = serde_json::to_vec(&config).unwrap();
    writer.write_file("config.json", &text).unwrap();
    writer.commit().unwrap();
}

fn name_in_file(name: &str) -> String {
    let mut name = name.replace("model.layers.", "blk.");
    for (from, to) in [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.q_a_proj", "attn_q_a"),
        ("self_attn.q_a_layernorm", "attn_q_a_norm"),
        ("self_attn.q_b_proj", "attn_q_b"),
        ("self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"),
        ("self_attn.kv_a_layernorm", "attn_kv_a_norm"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ] {
        name = name.replace(from, to);
    }
    name
}

fn stories() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k")
}

/// A random model of some layers, with a tokenizer.
fn layers(folder: &Path, count: usize) {
    let shapes = json!({
        "num_hidden_layers": count, "vocab_size": 512, "hidden_size": 64, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64,
    });
    write_random_variant(folder, &shapes);
    std::fs::copy(stories().join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
}

/// Converts, exports, and compares the file with the folder: as it is, and requantised.
fn check(source: &Path, options: &Recipe) -> Gguf {
    let outcome = run(source, options);
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("m.gguf");
    write_gguf(&outcome.saved(), &path, &GgufOptions::default(), &Device::flex()).unwrap();
    let file = read(&path);
    let open = |folder: &Path| Decoder::open(folder, &Device::flex(), Residency::Loaded).unwrap();
    let model = open(&outcome.saved());
    for (index, (format, most)) in [
        (None, 1e-5),
        (Some(NumberFormat::Fp16), 1e-4),
        (Some(NumberFormat::Q8_0), 1e-2),
    ]
    .into_iter()
    .enumerate()
    {
        let folder = place.path().join(index.to_string());
        unpack(&file, &outcome.saved(), &folder, format);
        let kl = compare(&model, &open(&folder)).kl;
        assert!(kl < most, "{format:?}, {options:?}: {kl}");
    }
    file
}

/// The file is the model, as it is and requantised, from every number format; its latents are ordinary numbers.
#[test]
fn files_hold_the_model() {
    for (dtype, q_lora_rank) in [
        (StorageDtype::F32, None),
        (StorageDtype::F32, Some(32)),
        (StorageDtype::F16, None),
        (StorageDtype::Bf16, None),
    ] {
        let options = Recipe {
            dtype,
            q_lora_rank,
            kv_lora_rank: Some(28),
            ..full_rank(&stories(), 8, 1, false)
        };
        let file = check(&stories(), &options);
        assert!(file.numbers["deepseek2.attention.layer_norm_rms_epsilon"] > 1e-5);
        assert_eq!(
            file.numbers["deepseek2.attention.q_lora_rank"],
            q_lora_rank.unwrap_or(64) as f64
        );
    }
}

/// Multipliers are in the tensors, and keys of layers without positions in the latent: the file has a place for both.
#[test]
fn files_hold_multipliers_and_layers_without_positions() {
    for changes in [
        json!({
            "model_type": "granite", "embedding_multiplier": 3.0, "attention_multiplier": 0.3, "residual_multiplier": 0.4,
            "logits_scaling": 0.5, "tie_word_embeddings": true,
        }),
        json!({"model_type": "smollm3", "no_rope_layers": [0, 1], "tie_word_embeddings": true}),
    ] {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("random");
        let mut shapes = json!({"vocab_size": 512, "max_position_embeddings": 64});
        shapes
            .as_object_mut()
            .unwrap()
            .extend(changes.as_object().unwrap().clone());
        write_random_variant(&folder, &shapes);
        std::fs::copy(stories().join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
        check(&folder, &full_rank(&folder, 8, 1, false));
    }
}

/// llama.cpp takes these numbers of layers for lite models, and looks for `attn_q` there and nowhere else.
#[test]
fn lite_layer_counts_have_full_queries() {
    for (count, lite) in [(26, true), (27, true), (28, false)] {
        let models = tempfile::tempdir().unwrap();
        let folder = models.path().join("random");
        layers(&folder, count);
        for low_rank_queries in [false, true] {
            let file = check(&folder, &full_rank(&folder, 16, 1, low_rank_queries));
            let has = |name: &str| file.tensors.contains_key(&format!("blk.0.{name}.weight"));
            assert_eq!(has("attn_q"), lite, "{count}");
            assert_eq!(has("attn_q_a") && has("attn_q_a_norm") && has("attn_q_b"), !lite);
            assert_eq!(file.numbers.contains_key("deepseek2.attention.q_lora_rank"), !lite);
        }
    }
}

/// The folder with latents of 1e-9, as older versions wrote them: dead in half precision and in blocks.
fn with_tiny_latents(folder: &Path, target: &Path) {
    let config = ModelConfig::read(folder).unwrap();
    let specs = model_tensors(&config);
    let checkpoint = Checkpoint::open(folder).unwrap();
    let mut writer = CheckpointWriter::create(target, &specs, StorageDtype::F32, 1 << 30, false).unwrap();
    for spec in &specs {
        let mut values = checkpoint.values(&spec.name, &spec.shape).unwrap();
        let (scaled, factor) = match spec.name.rsplit_once(".self_attn.") {
            Some((_, "kv_a_proj_with_mqa.weight")) => (28 * config.hidden_size, 2f32.powi(-15)),
            Some((_, "kv_a_layernorm.weight")) => (values.len(), 2f32.powi(15)),
            _ => (0, 1.0),
        };
        values[..scaled].iter_mut().for_each(|value| *value *= factor);
        writer.write(&spec.name, &values).unwrap();
    }
    for name in ["config.json", "tokenizer.json"] {
        writer
            .write_file(name, &std::fs::read(folder.join(name)).unwrap())
            .unwrap();
    }
    writer.commit().unwrap();
}

/// An export makes the latents anew, whatever size the folder has them in.
#[test]
fn tiny_latents_become_ordinary_numbers() {
    let options = Recipe {
        kv_lora_rank: Some(28),
        ..full_rank(&stories(), 8, 1, false)
    };
    let outcome = run(&stories(), &options);
    let place = tempfile::tempdir().unwrap();
    let [tiny, path, folder] = ["tiny", "m.gguf", "unpacked"].map(|name| place.path().join(name));
    with_tiny_latents(&outcome.saved(), &tiny);
    let open = |folder: &Path| Decoder::open(folder, &Device::flex(), Residency::Loaded).unwrap();
    let (model, tiny_model) = (open(&outcome.saved()), open(&tiny));
    let format = NumberFormat::Q8_0;
    let dead = RoundedModel {
        model: &tiny_model,
        format,
    };
    assert!(compare(&model, &tiny_model).kl < 1e-5 && compare(&model, &dead).kl > 0.1);
    write_gguf(&tiny, &path, &GgufOptions::default(), &Device::flex()).unwrap();
    unpack(&read(&path), &tiny, &folder, Some(format));
    let kl = compare(&model, &open(&folder)).kl;
    assert!(kl < 1e-2, "{kl}");
}

/// Norms of the model's own are no identity, and stay what they are.
#[test]
fn norms_of_the_models_own_are_kept() {
    let options = Recipe {
        use_qkv_norm: true,
        kv_lora_rank: Some(28),
        q_lora_rank: Some(32),
        ..full_rank(&stories(), 8, 1, false)
    };
    check(&stories(), &options);
}

/// Quantised files are the model as far as their bits go, in the formats that the rows' widths allow.
#[test]
fn quantised_files_hold_the_model() {
    let models = tempfile::tempdir().unwrap();
    let folder = models.path().join("wide");
    let shapes = json!({
        "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 4,
        "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 64, "num_hidden_layers": 3,
    });
    write_random_variant(&folder, &shapes);
    std::fs::copy(stories().join("tokenizer.json"), folder.join("tokenizer.json")).unwrap();
    let open = |folder: &Path| Decoder::open(folder, &Device::flex(), Residency::Loaded).unwrap();
    for (source, rank, formats, limits) in [
        (
            &folder,
            256,
            ["fp32 q8_0", "fp32 q6_k q8_0", "fp32 q4_k q5_0 q6_k"],
            [0.03, 0.2, 2.0],
        ),
        (
            &stories(),
            28,
            ["fp16 fp32 q8_0", "fp16 fp32 q8_0", "fp16 fp32 q5_0 q8_0"],
            [2e-3, 2e-3, 0.06],
        ),
    ] {
        let head = ModelConfig::read(source).unwrap().grouped().unwrap().head_dim;
        let options = Recipe {
            kv_lora_rank: Some(rank),
            ..full_rank(source, head, 1, false)
        };
        let outcome = run(source, &options);
        let model = open(&outcome.saved());
        let all = [Quantization::Q8_0, Quantization::Q6K, Quantization::Q4KM];
        for ((quantization, formats), most) in all.into_iter().zip(formats).zip(limits) {
            let place = tempfile::tempdir().unwrap();
            let [path, unpacked] = ["m.gguf", "unpacked"].map(|name| place.path().join(name));
            let wanted = GgufOptions {
                quantization: Some(quantization),
                ..GgufOptions::default()
            };
            write_gguf(&outcome.saved(), &path, &wanted, &Device::flex()).unwrap();
            let file = read(&path);
            let kinds: Vec<&str> = file.kinds.iter().map(String::as_str).collect();
            assert_eq!(kinds.join(" "), formats, "{quantization}");
            assert_eq!(file.numbers["general.quantization_version"], 2.0);
            unpack(&file, &outcome.saved(), &unpacked, None);
            let kl = compare(&model, &open(&unpacked)).kl;
            println!("{quantization}, rank {rank}: {kl}");
            if quantization == Quantization::Q8_0 {
                // As what `verify` measures takes them.
                let [plain, rounded] = ["plain.gguf", "rounded"].map(|name| place.path().join(name));
                write_gguf(&outcome.saved(), &plain, &GgufOptions::default(), &Device::flex()).unwrap();
                unpack(&read(&plain), &outcome.saved(), &rounded, Some(NumberFormat::Q8_0));
                let by_rounding = compare(&model, &open(&rounded)).kl;
                assert!((kl / by_rounding - 1.0).abs() < 0.3, "{kl} {by_rounding}");
            }
            assert!(kl < most, "{quantization}, rank {rank}: {kl}");
        }
    }
}
