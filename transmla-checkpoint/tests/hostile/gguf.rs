//! GGUF files whose headers lie, and files that are damaged anywhere.

use proptest::prelude::*;
use transmla_checkpoint::checkpoint::model_file;

use crate::fixture::{Folder, Model, assert_says, read_everything};

const U32: u32 = 4;
const F32: u32 = 6;
const TEXT: u32 = 8;
const ARRAY: u32 = 9;

/// A file in parts that may contradict each other.
#[derive(Clone)]
struct Gguf {
    version: u32,
    keys: Vec<(String, u32, Vec<u8>)>,
    tensors: Vec<Tensor>,
    data: Vec<u8>,
    /// What is announced where it is not the truth.
    counts: Option<[u64; 2]>,
}

#[derive(Clone)]
struct Tensor {
    name: String,
    /// In the order of the file: columns first.
    sizes: Vec<u64>,
    kind: u32,
    offset: u64,
}

fn text(value: &str) -> Vec<u8> {
    [&(value.len() as u64).to_le_bytes()[..], value.as_bytes()].concat()
}

fn texts(values: &[&str]) -> Vec<u8> {
    let head = [&TEXT.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
    values.iter().fold(head, |all, value| [all, text(value)].concat())
}

fn ints(values: &[i32]) -> Vec<u8> {
    let head = [&5u32.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
    values
        .iter()
        .fold(head, |all, value| [&all[..], &value.to_le_bytes()].concat())
}

impl Gguf {
    /// The model of the fixture.
    fn valid() -> Self {
        let mut file = Self {
            version: 3,
            keys: Vec::new(),
            tensors: Vec::new(),
            data: Vec::new(),
            counts: None,
        };
        file.set("general.architecture", TEXT, text("llama"));
        for (key, value) in [
            ("block_count", 2u32),
            ("context_length", 64),
            ("embedding_length", 8),
            ("feed_forward_length", 12),
            ("attention.head_count", 2),
            ("attention.head_count_kv", 1),
        ] {
            file.set(&format!("llama.{key}"), U32, value.to_le_bytes().into());
        }
        file.set(
            "llama.attention.layer_norm_rms_epsilon",
            F32,
            1e-5f32.to_le_bytes().into(),
        );
        file.set("tokenizer.ggml.model", TEXT, text("gpt2"));
        file.set("tokenizer.ggml.pre", TEXT, text("gpt-2"));
        let tokens = ["a", "b", "c", "ab", "<s>"];
        file.set("tokenizer.ggml.tokens", ARRAY, texts(&tokens));
        file.set("tokenizer.ggml.token_type", ARRAY, ints(&[1, 1, 1, 1, 3]));
        file.set("tokenizer.ggml.merges", ARRAY, texts(&["a b"]));
        file.set("tokenizer.ggml.bos_token_id", U32, 4u32.to_le_bytes().into());
        for entry in Model::valid().tensors {
            let name = match entry.name.as_str() {
                "model.embed_tokens.weight" => "token_embd.weight".to_owned(),
                "model.norm.weight" => "output_norm.weight".to_owned(),
                "lm_head.weight" => "output.weight".to_owned(),
                name => name
                    .replace("model.layers.", "blk.")
                    .replace("self_attn.q_proj", "attn_q")
                    .replace("self_attn.k_proj", "attn_k")
                    .replace("self_attn.v_proj", "attn_v")
                    .replace("self_attn.o_proj", "attn_output")
                    .replace("post_attention_layernorm", "ffn_norm")
                    .replace("input_layernorm", "attn_norm")
                    .replace("mlp.", "ffn_")
                    .replace("_proj", ""),
            };
            file.tensors.push(Tensor {
                name,
                sizes: entry.shape.iter().rev().copied().collect(),
                kind: 0,
                offset: file.data.len() as u64,
            });
            file.data.extend(&entry.bytes);
            file.data.resize(file.data.len().next_multiple_of(32), 0);
        }
        file
    }

    fn set(&mut self, key: &str, kind: u32, value: Vec<u8>) {
        self.keys.retain(|(known, ..)| known != key);
        self.keys.push((key.into(), kind, value));
    }

    fn tensor(&mut self, name: &str) -> &mut Tensor {
        self.tensors.iter_mut().find(|tensor| tensor.name == name).unwrap()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut out = b"GGUF".to_vec();
        out.extend(self.version.to_le_bytes());
        let counts = self
            .counts
            .unwrap_or([self.tensors.len() as u64, self.keys.len() as u64]);
        counts.iter().for_each(|count| out.extend(count.to_le_bytes()));
        for (key, kind, value) in &self.keys {
            out.extend(text(key));
            out.extend(kind.to_le_bytes());
            out.extend(value);
        }
        for tensor in &self.tensors {
            out.extend(text(&tensor.name));
            out.extend((tensor.sizes.len() as u32).to_le_bytes());
            tensor.sizes.iter().for_each(|size| out.extend(size.to_le_bytes()));
            out.extend(tensor.kind.to_le_bytes());
            out.extend(tensor.offset.to_le_bytes());
        }
        out.resize(out.len().next_multiple_of(32), 0);
        out.extend(&self.data);
        out
    }

    fn save(&self) -> Folder {
        let folder = Folder::empty();
        folder.put("m.gguf", self.bytes());
        folder
    }

    #[track_caller]
    fn refused(&self, parts: &[&str]) {
        let folder = self.save();
        let error = read_everything(&folder.file("m.gguf"))
            .expect_err("it was opened and read")
            .to_string();
        if !parts.is_empty() {
            assert_says(&error, &[&["m.gguf"], parts].concat());
        }
    }
}

/// A change of the valid file, and what is said of it.
#[track_caller]
fn refused(change: impl FnOnce(&mut Gguf), parts: &[&str]) {
    let mut file = Gguf::valid();
    change(&mut file);
    file.refused(parts);
}

#[test]
fn the_fixture_itself_is_valid() {
    let folder = Gguf::valid().save();
    read_everything(&folder.file("m.gguf")).unwrap();
    read_everything(folder.path()).unwrap();
    let tokenizer = model_file(&folder.file("m.gguf"), "tokenizer.json", 1 << 20)
        .unwrap()
        .unwrap();
    let tokenizer: serde_json::Value = serde_json::from_slice(&tokenizer).unwrap();
    assert_eq!(tokenizer["model"]["merges"], serde_json::json!([["a", "b"]]));
    assert_eq!(tokenizer["added_tokens"][0]["content"], "<s>");
    // What lies beside it goes first.
    folder.put("tokenizer.json", "{}");
    assert_eq!(model_file(folder.path(), "tokenizer.json", 2).unwrap().unwrap(), b"{}");
}

#[test]
fn a_file_cut_off_anywhere() {
    let whole = Gguf::valid().bytes();
    let folder = Folder::empty();
    for length in (0..whole.len()).step_by(7) {
        folder.put("m.gguf", &whole[..length]);
        let error = read_everything(&folder.file("m.gguf"))
            .expect_err("it was read")
            .to_string();
        assert_says(&error, &["m.gguf", "bytes"]);
    }
}

#[test]
fn beginnings_of_something_else() {
    refused(|file| file.version = 1, &["version 1", "newer llama.cpp"]);
    refused(|file| file.version = 3u32.swap_bytes(), &["big-endian"]);
    refused(|file| file.version = 1 << 20, &["version 1048576"]);
    let folder = Folder::empty();
    folder.put(
        "m.gguf",
        "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 269060552\n",
    );
    let error = read_everything(&folder.file("m.gguf")).unwrap_err().to_string();
    assert_says(&error, &["m.gguf", "git LFS pointer"]);
}

#[test]
fn numbers_that_announce_more_than_there_is() {
    for count in [u64::MAX, 1 << 62, 1 << 40, 100_000] {
        refused(
            |file| file.counts = Some([count, file.keys.len() as u64]),
            &["tensors are announced"],
        );
        refused(
            |file| file.counts = Some([file.tensors.len() as u64, count]),
            &["keys are announced"],
        );
        let long = count.to_le_bytes().to_vec();
        refused(
            |file| file.set("general.name", TEXT, long.clone()),
            &["bytes are announced"],
        );
        for kind in [TEXT, 0, 4, 10] {
            let array = [&kind.to_le_bytes()[..], &long].concat();
            refused(|file| file.set("general.tags", ARRAY, array), &[]);
        }
    }
    let nested = [&ARRAY.to_le_bytes()[..], &1u64.to_le_bytes()].concat();
    refused(|file| file.set("general.tags", ARRAY, nested), &["values of kind 9"]);
    refused(|file| file.set("general.tags", 77, Vec::new()), &["unknown kind 77"]);
    refused(
        |file| file.keys.push(("general.architecture".into(), U32, vec![0; 4])),
        &["is there twice"],
    );
    refused(
        |file| file.set("\u{0}", TEXT, [&2u64.to_le_bytes()[..], b"\xff\xfe"].concat()),
        &["not UTF-8"],
    );
}

#[test]
fn tensors_that_are_not_where_they_are_said_to_be() {
    let name = "blk.1.attn_q.weight";
    refused(|file| file.tensor(name).offset = 8, &[name, "no multiple of 32"]);
    refused(|file| file.tensor(name).offset = 0, &[name, "overlap"]);
    for offset in [1 << 20, u64::MAX - 31, 1 << 63] {
        refused(|file| file.tensor(name).offset = offset, &[name]);
    }
    for sizes in [vec![u64::MAX], vec![1 << 32, 1 << 32], vec![0, 8], vec![1 << 63, 2]] {
        refused(|file| file.tensor(name).sizes = sizes, &[name, "shape"]);
    }
    for sizes in [Vec::new(), vec![1; 5]] {
        refused(|file| file.tensor(name).sizes = sizes, &[name, "dimensions"]);
    }
    refused(|file| file.tensor(name).kind = 16, &[name, "number format 16", "Q8_0"]);
    refused(
        |file| file.tensor(name).kind = 8,
        &[name, "rows of 8 numbers", "blocks of 32"],
    );
    refused(
        |file| file.tensor(name).name = "blk.0.attn_q.weight".into(),
        &["is there twice"],
    );
    refused(|file| file.tensor(name).sizes = vec![16, 4], &[]);
    refused(|file| file.tensor(name).sizes = vec![8, 3], &[name, "heads"]);
    refused(
        |file| file.set("general.alignment", U32, 33u32.to_le_bytes().into()),
        &["general.alignment is 33"],
    );
    refused(
        |file| file.set("general.alignment", U32, 0u32.to_le_bytes().into()),
        &["general.alignment is 0"],
    );
}

#[test]
fn sizes_that_no_model_has() {
    let number = |value: u32| value.to_le_bytes().to_vec();
    for (key, value) in [
        ("attention.head_count", 0),
        ("attention.head_count", u32::MAX),
        ("attention.head_count_kv", 0),
        ("attention.key_length", 1 << 31),
    ] {
        let mut file = Gguf::valid();
        file.set(&format!("llama.{key}"), U32, number(value));
        let folder = file.save();
        assert!(read_everything(&folder.file("m.gguf")).is_err(), "{key} {value}");
    }
    refused(
        |file| file.set("llama.block_count", U32, number(u32::MAX)),
        &["4294967295 layers"],
    );
    refused(
        |file| file.set("llama.block_count", TEXT, text("two")),
        &["block_count"],
    );
}

/// No tokenizer is a reason to say so, not to fail with the weights.
#[test]
fn tokenizers_that_cannot_be_made() {
    for (key, kind, value) in [
        ("tokenizer.ggml.model", TEXT, text("t5")),
        ("tokenizer.ggml.pre", TEXT, text("default")),
        ("tokenizer.ggml.tokens", ARRAY, texts(&[])),
        ("tokenizer.ggml.tokens", ARRAY, texts(&["a"; 5])),
        ("tokenizer.ggml.tokens", ARRAY, texts(&["x"; 17])),
        ("tokenizer.ggml.token_type", ARRAY, ints(&[1, 1])),
        ("tokenizer.ggml.token_type", ARRAY, ints(&[1, 1, 1, 1, 9])),
        ("tokenizer.ggml.merges", ARRAY, texts(&["ab"])),
        ("tokenizer.ggml.model", TEXT, text("llama")),
    ] {
        let mut file = Gguf::valid();
        file.set(key, kind, value);
        let folder = file.save();
        read_everything(&folder.file("m.gguf")).unwrap();
        let error = model_file(&folder.file("m.gguf"), "tokenizer.json", 1 << 20)
            .unwrap_err()
            .to_string();
        assert_says(&error, &["m.gguf", "no tokenizer", "put the tokenizer.json"]);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    /// Damage in the header, and what a damaged header leads to.
    #[test]
    fn a_damaged_header(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let whole = Gguf::valid();
        let header = whole.bytes().len() - whole.data.len();
        let mut bytes = whole.bytes();
        for (place, byte) in places {
            bytes[place.index(header)] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let folder = Folder::empty();
        folder.put("m.gguf", &bytes);
        let file = folder.file("m.gguf");
        let _ = read_everything(&file);
        for name in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            let _ = model_file(&file, name, 1 << 20);
        }
    }

    #[test]
    fn random_bytes_behind_a_plausible_beginning(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let folder = Folder::empty();
        folder.put("m.gguf", [b"GGUF\x03\0\0\0\x01\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0", &bytes[..]].concat());
        prop_assert!(read_everything(&folder.file("m.gguf")).is_err());
    }
}
