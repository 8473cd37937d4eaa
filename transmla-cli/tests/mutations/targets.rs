//! The files that are damaged, and what reads them.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::{Value, json};
use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, evaluation_windows, load, sample};
use transmla_convert::Recipe;
use transmla_core::checkpoint::read_input_ids;
use transmla_core::hub::HubOptions;
use transmla_core::{Decoder, LayeredModel, Residency};

/// A file and the program's way to read it.
pub struct Target {
    pub name: &'static str,
    /// Where it lies.
    pub folder: &'static str,
    pub file: &'static str,
    /// Its content when it is whole.
    pub seed: Vec<u8>,
    /// Whether it may also be changed value by value.
    pub is_json: bool,
    pub read: fn(&Path, &Path),
}

fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models")
}

/// A model of one layer, in two shards.
fn small_model(folder: &Path) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let config = json!({
        "model_type": "llama", "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 16, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": false, "max_position_embeddings": 64, "rope_theta": 10000.0,
        "rope_scaling": null, "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
    });
    let parsed = transmla_core::ModelConfig::from_json(config.as_object().unwrap().clone()).unwrap();
    let (mut data, mut header, mut map) = (Vec::new(), serde_json::Map::new(), serde_json::Map::new());
    for spec in transmla_core::model::model_tensors(&parsed) {
        let start = data.len();
        data.extend((0..spec.elements()).flat_map(|i| ((i % 11) as f32 / 11.0 - 0.4).to_le_bytes()));
        map.insert(spec.name.clone(), "model.safetensors".into());
        header.insert(
            spec.name,
            json!({"dtype": "F32", "shape": spec.shape, "data_offsets": [start, data.len()]}),
        );
    }
    let header = Value::Object(header).to_string().into_bytes();
    let weights = [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat();
    let index = json!({"metadata": {"total_size": data.len()}, "weight_map": map})
        .to_string()
        .into_bytes();
    let config = config.to_string().into_bytes();
    for (name, bytes) in [
        ("config.json", &config),
        ("model.safetensors", &weights),
        ("model.safetensors.index.json", &index),
    ] {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
    (config, weights, index)
}

fn read_model(folder: &Path, _: &Path) {
    let Ok(model) = Decoder::open(folder, &Device::flex(), Residency::Streamed) else {
        return;
    };
    for layer in 0..model.config().num_hidden_layers.min(4) {
        let _ = model.layer(layer);
    }
    let _ = model.head();
}

fn read_text(_: &Path, path: &Path) {
    let _ = load(
        &DatasetSource::Path(path.to_path_buf()),
        Split::Train,
        &HubOptions::default(),
    );
}

fn read_ids(_: &Path, path: &Path) {
    let _ = read_input_ids(path);
}

fn read_recipe(_: &Path, path: &Path) {
    if let Ok(text) = std::fs::read_to_string(path)
        && let Ok(recipe) = Recipe::from_toml(&text)
    {
        let _ = recipe.to_toml();
    }
}

fn read_tokenizer(folder: &Path, _: &Path) {
    let Ok(tokenizer) = TextTokenizer::from_folder(folder) else {
        return;
    };
    let text = "Once upon a time,\n\nthe naïve ﬁrst crab 🦀 <s>cost</s> €5. eeeee";
    let rows = [text.to_owned(), String::new(), "ab ".repeat(200)];
    for special in [true, false] {
        if let Ok(ids) = tokenizer.encode(text, special) {
            let _ = tokenizer.decode(&ids, special);
            let mut stream = tokenizer.stream(special);
            ids.iter().for_each(|id| drop(stream.push(*id)));
        }
    }
    let _ = tokenizer.decode(&(0..40).chain([511, 512, u32::MAX]).collect::<Vec<u32>>(), false);
    let _ = tokenizer.remark();
    let _ = sample(
        &rows,
        &tokenizer,
        &SampleSpec {
            samples: 2,
            sequence: 16,
            seed: 1,
        },
    );
    let _ = evaluation_windows(&rows, &tokenizer, 16, None);
}

/// Tokenizers that have every kind of part between them.
fn tokenizers() -> Vec<Value> {
    let stories: Value =
        serde_json::from_slice(&std::fs::read(models().join("stories260k/tokenizer.json")).unwrap()).unwrap();
    let level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
    let small = |model: Value| {
        json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": [
            {"id": 0, "content": "<unk>", "single_word": false, "lstrip": false, "rstrip": true, "normalized": false, "special": true}],
            "normalizer": null, "pre_tokenizer": null, "post_processor": null, "decoder": null, "model": model})
    };
    let letters = || "▁abcdefghimnoprstuv.,O€éﬁ5".chars().map(String::from);
    let special = [json!(["<unk>", 0.0])].into_iter();
    let longer = [json!(["on", -1.5]), json!(["▁time", -3.0])];
    let vocab: Vec<Value> = special
        .chain(letters().map(|c| json!([c, -2.5])))
        .chain(longer)
        .collect();
    let unigram = json!({"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": vocab});
    let words = || {
        let vocab: serde_json::Map<String, Value> = ["<unk>", "[CLS]", "[SEP]", "once", "##e", "time", "a", "##pon"]
            .iter()
            .enumerate()
            .map(|(id, word)| ((*word).to_owned(), id.into()))
            .collect();
        json!({"type": "WordPiece", "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab})
    };
    let mut bytes = stories.clone();
    bytes["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "NFKC"}, {"type": "Lowercase"}, {"type": "Strip", "strip_left": true, "strip_right": false},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "▁"}, {"type": "StripAccents"}, {"type": "Nmt"}]});
    bytes["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}| ?\\p{L}+|\\s+(?!\\S)"}, "behavior": "Isolated", "invert": false},
        {"type": "Digits", "individual_digits": true}, {"type": "FixedLength", "length": 5}, level]});
    bytes["post_processor"] = json!({"type": "Sequence", "processors": [level, {"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}}]});
    bytes["decoder"] = level.clone();
    let mut pieces = small(unigram);
    pieces["normalizer"] = json!({"type": "Sequence", "normalizers": [
        // A table of 256 units that lead nowhere, and no text.
        {"type": "Precompiled", "precompiled_charsmap": format!("AAQA{}AAA=", "A".repeat(4 * 341))}, {"type": "Prepend", "prepend": "▁"}]});
    pieces["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    pieces["decoder"] = json!({"type": "Sequence", "decoders": [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
        {"type": "Strip", "content": " ", "start": 1, "stop": 0}]});
    pieces["post_processor"] = json!({"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": true, "add_prefix_space": true});
    let mut word_piece = small(words());
    word_piece["normalizer"] = json!({"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true});
    word_piece["pre_tokenizer"] = json!({"type": "BertPreTokenizer"});
    word_piece["post_processor"] = json!({"type": "BertProcessing", "sep": ["[SEP]", 2], "cls": ["[CLS]", 1]});
    word_piece["decoder"] = json!({"type": "WordPiece", "prefix": "##", "cleanup": true});
    let level_model =
        json!({"type": "WordLevel", "unk_token": "<unk>", "vocab": {"<unk>": 0, "Once": 1, "time": 2, "a": 3}});
    let mut word_level = small(level_model);
    word_level["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Punctuation", "behavior": "Isolated"}, {"type": "CharDelimiterSplit", "delimiter": "e"}, {"type": "UnicodeScripts"}]});
    word_level["decoder"] = json!({"type": "CTC", "pad_token": "<unk>", "word_delimiter_token": "|", "cleanup": true});
    vec![stories, bytes, pieces, word_piece, word_level]
}

/// All targets; their folders are made.
pub fn targets(root: &Path) -> Vec<Target> {
    for folder in ["model", "texts", "tokenizer"] {
        std::fs::create_dir(root.join(folder)).unwrap();
    }
    let (config, weights, index) = small_model(&root.join("model"));
    let lines: String = (0..20)
        .map(|id| format!("{{\"id\": {id}, \"text\": \"Once upon a time, naïve {id}.\"}}\n"))
        .collect();
    let chats = (0..5).map(|id| json!({"messages": [{"role": "user", "content": id.to_string()}, {"role": "assistant", "content": ["a"]}]}));
    let object = json!({"version": 1, "data": [{"text": "one"}, {"meta": {"text": "two"}}, {"text": null}]});
    let plain = "One story.\r\n\r\nTwo “stories”.\nOn a line.\n\n";
    let utf_16: Vec<u8> = ["\u{feff}", plain]
        .concat()
        .encode_utf16()
        .flat_map(u16::to_le_bytes)
        .collect();
    let table = std::fs::read(models().join("stories/validation-00000-of-00001.parquet")).unwrap();
    let ids: Vec<u8> = (0..24_i64).flat_map(i64::to_le_bytes).collect();
    let view = safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![4, 6], &ids).unwrap();
    let ids = safetensors::serialize([("input_ids", view)], None).unwrap();
    let recipe = Recipe {
        model_path: "org/model".into(),
        ..Recipe::default()
    }
    .to_toml()
    .unwrap();
    let zstd = zstd::encode_all(lines.as_bytes(), 3).unwrap();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        std::io::Write::write_all(&mut encoder, lines.as_bytes()).unwrap();
        encoder.finish().unwrap()
    };
    let text = |name, file, seed, is_json| Target {
        name,
        folder: "texts",
        file,
        seed,
        is_json,
        read: read_text,
    };
    let model = |name, seed, is_json| Target {
        name,
        folder: "model",
        file: name,
        seed,
        is_json,
        read: read_model,
    };
    let mut all = vec![
        model("config.json", config, true),
        model("model.safetensors", weights, false),
        model("model.safetensors.index.json", index, true),
        text("json lines", "a.jsonl", lines.into_bytes(), false),
        text(
            "json chats",
            "b.json",
            Value::Array(chats.collect()).to_string().into_bytes(),
            true,
        ),
        text("json object", "c.json", object.to_string().into_bytes(), true),
        text("plain text", "d.txt", plain.as_bytes().to_vec(), false),
        text("UTF-16", "e.txt", utf_16, false),
        text("parquet", "f.parquet", table, false),
        text("zstd", "g.jsonl.zst", zstd, false),
        text("gzip", "h.jsonl.gz", gzip, false),
        Target {
            name: "token ids",
            folder: "texts",
            file: "i.safetensors",
            seed: ids,
            is_json: false,
            read: read_ids,
        },
        Target {
            name: "transmla.toml",
            folder: "texts",
            file: "transmla.toml",
            seed: recipe.into_bytes(),
            is_json: false,
            read: read_recipe,
        },
    ];
    all.extend(tokenizers().into_iter().map(|seed| Target {
        name: "tokenizer.json",
        folder: "tokenizer",
        file: "tokenizer.json",
        seed: seed.to_string().into_bytes(),
        is_json: true,
        read: read_tokenizer,
    }));
    // Whole, each is read without an error; else there would be nothing to damage.
    for target in all.iter().filter(|target| target.file == "tokenizer.json") {
        let path = root.join(target.folder).join(target.file);
        std::fs::write(&path, &target.seed).unwrap();
        TextTokenizer::from_folder(path.parent().unwrap()).unwrap();
    }
    all
}
