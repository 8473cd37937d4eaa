//! Whole models: sequences of different lengths, memory, refusals, other devices.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::synthetic::write_random_model;
use transmla_core::{CoreError, Decoder, KvCache, LayeredModel, Residency, StorageDtype, TokenBatch};

/// Grouped queries plain, in windows, with bounds, with two RoPEs; latents with and without low-rank queries.
pub const FAMILIES: [&str; 6] = [
    "mistral",
    "mistral-window",
    "gemma2",
    "gemma3",
    "deepseek-v3",
    "deepseek-v3-qlora",
];

fn folder(family: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/families")
        .join(family)
}

pub fn open(family: &str) -> (Decoder, Vec<i64>) {
    let model = Decoder::open(&folder(family), &Device::flex(), Residency::Loaded).unwrap();
    let tokens = read_input_ids(&folder(family).join("reference.safetensors")).unwrap();
    (model, tokens.row(0).to_vec())
}

pub fn batch(rows: &[&[i64]]) -> TokenBatch {
    TokenBatch::from_ids(rows.concat(), rows.len(), rows[0].len()).unwrap()
}

fn difference(a: Tensor<2>, b: Tensor<2>) -> f32 {
    (a - b).abs().max().into_scalar()
}

/// Three prompts of different lengths, each read alone, then continued together by one and by several tokens.
pub fn check_together(model: &Decoder, ids: &[i64], tolerance: f32) {
    let lengths = [4, 11, 1];
    let caches = lengths.map(|length| {
        let mut cache = KvCache::new(model.config(), 16);
        model.next_logits(&batch(&[&ids[..length]]), Some(&mut cache)).unwrap();
        cache
    });
    let mut cache = KvCache::join(caches.to_vec()).unwrap();
    assert_eq!(cache.lengths(), lengths);
    let numbers = model.config().attention.cache_numbers() * model.config().num_hidden_layers;
    assert_eq!(cache.bytes(), 16 * numbers * 4);
    let mut seen = 0;
    for new in [1, 3, 1] {
        let rows = lengths.map(|length| &ids[length + seen..length + seen + new]);
        let found = model.next_logits(&batch(&rows), Some(&mut cache)).unwrap();
        seen += new;
        for (row, length) in lengths.into_iter().enumerate() {
            let expected = model.next_logits(&batch(&[&ids[..length + seen]]), None).unwrap();
            let worst = difference(found.clone().narrow(0, row, 1), expected);
            assert!(worst < tolerance, "sequence {row} after {seen}: {worst}");
        }
    }
    assert_eq!(cache.lengths(), lengths.map(|length| length + 5));
}

#[test]
fn sequences_of_different_lengths_decode_as_each_alone() {
    for family in FAMILIES {
        let (model, ids) = open(family);
        check_together(&model, &ids, 1e-4);
    }
}

/// A device whose tensors the kernels of the CPU cannot read: what every accelerator does.
#[test]
fn other_devices_decode_the_same() {
    for family in FAMILIES {
        let (model, ids) = open(family);
        check_together(&model.on_device(&Device::flex().autodiff()), &ids, 1e-4);
    }
}

/// Room is taken once, grows by doubling, and forgetting gives what was before.
#[test]
fn memory_is_taken_once() {
    for family in ["mistral", "deepseek-v3"] {
        let (model, ids) = open(family);
        let numbers = model.config().attention.cache_numbers() * model.config().num_hidden_layers;
        for (dtype, bytes) in [(StorageDtype::F32, 4), (StorageDtype::Bf16, 2)] {
            let mut cache = KvCache::with_dtype(model.config(), 8, dtype);
            assert_eq!((cache.bytes(), cache.allocated_bytes()), (0, 0));
            let feed = |range: std::ops::Range<usize>, cache: &mut KvCache| {
                model.next_logits(&batch(&[&ids[range]]), Some(cache)).unwrap()
            };
            feed(0..5, &mut cache);
            let first = feed(5..8, &mut cache);
            assert_eq!(
                (cache.bytes(), cache.allocated_bytes()),
                (8 * numbers * bytes, 8 * numbers * bytes)
            );
            feed(8..9, &mut cache);
            assert_eq!(cache.allocated_bytes(), 16 * numbers * bytes);
            cache.truncate(5);
            assert_eq!(cache.bytes(), 5 * numbers * bytes);
            assert_eq!(difference(first, feed(5..8, &mut cache)), 0.0);
        }
    }
}

#[test]
fn a_cache_of_something_else_is_refused() {
    let (grouped, ids) = open("mistral");
    let (latent, _) = open("deepseek-v3");
    let mut cache = KvCache::new(grouped.config(), 8);
    let refused = |result: Result<Tensor<2>, CoreError>, sentence: &str| {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(sentence), "{error}");
    };
    refused(
        latent.next_logits(&batch(&[&ids[..2]]), Some(&mut cache)),
        "another model",
    );
    grouped.next_logits(&batch(&[&ids[..2]]), Some(&mut cache)).unwrap();
    refused(
        grouped.next_logits(&batch(&[&ids[..2], &ids[..2]]), Some(&mut cache)),
        "holds 1 sequences",
    );
    let mut other = KvCache::new(latent.config(), 8);
    let unused = KvCache::join(vec![cache.clone(), other.clone()]).unwrap_err();
    assert!(unused.to_string().contains("empty"), "{unused}");
    latent.next_logits(&batch(&[&ids[..2]]), Some(&mut other)).unwrap();
    assert!(KvCache::join(vec![cache.clone(), other]).is_err());
    assert!(KvCache::join(Vec::new()).is_err());
    let mut half = KvCache::with_dtype(grouped.config(), 8, StorageDtype::F16);
    grouped.next_logits(&batch(&[&ids[..2]]), Some(&mut half)).unwrap();
    assert!(KvCache::join(vec![cache, half]).is_err());
}

/// A filled cache is one that a text of that length leaves, but for its numbers.
#[test]
fn a_filled_cache_goes_on() {
    for family in FAMILIES {
        let (model, ids) = open(family);
        let mut cache = KvCache::new(model.config(), 12);
        cache.fill_at_random(2, 9, model.device()).unwrap();
        assert!(cache.fill_at_random(3, 1, model.device()).is_err());
        let logits = model
            .next_logits(&batch(&[&ids[..1], &ids[1..2]]), Some(&mut cache))
            .unwrap();
        assert!(logits.into_data().iter::<f32>().all(f32::is_finite));
        assert_eq!(cache.lengths(), [10, 10]);
        let numbers = model.config().attention.cache_numbers() * model.config().num_hidden_layers;
        assert_eq!(cache.allocated_bytes(), 2 * 12 * numbers * 4);
    }
}

/// A cache keeps nothing of the model that filled it: another one of the same shape goes on with its own weights.
#[test]
fn two_models_of_one_shape_share_a_cache() {
    for family in ["mistral", "deepseek-v3", "deepseek-v3-qlora"] {
        let (first, ids) = open(family);
        let folder = tempfile::tempdir().unwrap();
        let config = first.config().raw.clone();
        let other = folder.path().join("other");
        write_random_model(config, &other, StorageDtype::F32, u64::MAX, 7).unwrap();
        let second = Decoder::open(&other, &Device::flex(), Residency::Loaded).unwrap();
        let mut cache = KvCache::new(first.config(), 8);
        let mut decode = |model: &Decoder| {
            cache.truncate(0);
            model.next_logits(&batch(&[&ids[..3]]), Some(&mut cache)).unwrap();
            model.next_logits(&batch(&[&ids[3..4]]), Some(&mut cache)).unwrap()
        };
        decode(&first);
        let found = decode(&second);
        let expected = second.next_logits(&batch(&[&ids[..4]]), None).unwrap();
        let worst = difference(found, expected);
        assert!(worst < 1e-4, "{family}: {worst}");
    }
}

/// A token that the model does not know leaves the cache as it was.
#[test]
fn an_error_changes_nothing() {
    let (model, ids) = open("deepseek-v3");
    let mut cache = KvCache::new(model.config(), 8);
    model.next_logits(&batch(&[&ids[..3]]), Some(&mut cache)).unwrap();
    let unknown = [model.config().vocab_size as i64];
    assert!(model.next_logits(&batch(&[&unknown]), Some(&mut cache)).is_err());
    assert_eq!(cache.lengths(), [3]);
    let found = model.next_logits(&batch(&[&ids[3..4]]), Some(&mut cache)).unwrap();
    let expected = model.next_logits(&batch(&[&ids[..4]]), None).unwrap();
    assert!(difference(found, expected) < 1e-4);
}
