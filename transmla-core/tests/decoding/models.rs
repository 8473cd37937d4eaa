//! Whole models: sequences of different lengths, memory, refusals, other devices.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::synthetic::write_random_model;
use transmla_core::{
    CacheFormat, CoreError, Decoder, KvCache, LayeredModel, Quantisation, Residency, StorageDtype, TokenBatch,
};

/// Grouped queries plain, in windows, with bounds, with two RoPEs; latents with and without low-rank queries.
pub const FAMILIES: [&str; 10] = [
    "mistral",
    "mistral-window",
    "gemma2",
    "gemma3",
    "smollm3",
    "granite",
    "olmo2",
    "phi3",
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

pub fn difference(a: Tensor<2>, b: Tensor<2>) -> f32 {
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

/// Latents with and without low-rank queries, with their own norms.
const LATENT_FAMILIES: [&str; 2] = ["deepseek-v3", "deepseek-v3-qlora"];

/// Another basis of the latents changes nothing while nothing is rounded, whether weights are in memory or not.
#[test]
fn the_basis_for_quantised_caches_is_exact() {
    for family in LATENT_FAMILIES {
        let (loaded, ids) = open(family);
        let streamed = Decoder::open(&folder(family), &Device::flex(), Residency::Streamed).unwrap();
        let expected = loaded.next_logits(&batch(&[&ids[..9]]), None).unwrap();
        for model in [loaded, streamed] {
            let turned = model.for_cache(CacheFormat::Quantised(Quantisation::Int8)).unwrap();
            assert_eq!(turned.residency(), model.residency());
            let mut cache = KvCache::new(turned.config(), 9);
            turned.next_logits(&batch(&[&ids[..8]]), Some(&mut cache)).unwrap();
            let cached = turned.next_logits(&batch(&[&ids[8..9]]), Some(&mut cache)).unwrap();
            for found in [cached, turned.next_logits(&batch(&[&ids[..9]]), None).unwrap()] {
                let worst = difference(found, expected.clone());
                assert!(worst < 1e-4, "{family}: {worst}");
            }
        }
    }
}

/// Tokens see what is kept however a text is cut, on every device; what is kept is near what was put in.
#[test]
fn quantised_caches_decode_alike_and_nearly_the_same() {
    for family in LATENT_FAMILIES {
        let (model, ids) = open(family);
        let exact = model.next_logits(&batch(&[&ids[..12]]), None).unwrap();
        let spread = exact.clone().abs().max().into_scalar::<f32>();
        let mut errors = Vec::new();
        for quantisation in Quantisation::ALL {
            let format = CacheFormat::Quantised(quantisation);
            let turned = model.for_cache(format).unwrap();
            let other = turned.on_device(&Device::flex().autodiff());
            let mut found = Vec::new();
            for model in [&turned, &other] {
                for pieces in [&[12][..], &[7, 1, 1, 3], &[1, 10, 1]] {
                    let mut cache = KvCache::in_format(model.config(), 4, format).unwrap();
                    let mut start = 0;
                    let logits = pieces.iter().map(|length| {
                        start += length;
                        let piece = batch(&[&ids[start - length..start]]);
                        model.next_logits(&piece, Some(&mut cache)).unwrap()
                    });
                    let logits = logits.last().unwrap().into_data().iter::<f32>().collect::<Vec<_>>();
                    found.push(Tensor::<1>::from_floats(&logits[..], &Device::flex()).unsqueeze::<2>());
                    let layers = model.config().num_hidden_layers;
                    let bytes = format.bytes_per_token(model.config()).unwrap() * layers;
                    assert_eq!(
                        (cache.format(), cache.bytes_per_token(), cache.bytes()),
                        (format, bytes, 12 * bytes)
                    );
                    assert!(cache.allocated_bytes() >= cache.bytes());
                }
            }
            for other in &found {
                // Sums in another order may round a number of a row to the other of two codes.
                let apart = difference(other.clone(), found[0].clone());
                let allowed = if quantisation == Quantisation::Int8 { 0.01 } else { 0.1 };
                assert!(apart < allowed * spread, "{family} {quantisation}: {apart} of {spread}");
            }
            errors.push(difference(found.swap_remove(0), exact.clone()) / spread);
        }
        assert!(errors.iter().all(|error| *error > 0.0), "{family}: {errors:?}");
        assert!(
            errors[0] < 0.02 && errors[1] < 0.1 && errors[2] < 0.5,
            "{family}: {errors:?}"
        );
    }
}

/// Copies, joins and forgetting, which work on bytes of rows.
#[test]
fn quantised_caches_are_joined_and_cut() {
    let (model, ids) = open("deepseek-v3");
    let format = CacheFormat::Quantised(Quantisation::Int4);
    let read = |length: usize| {
        let mut cache = KvCache::in_format(model.config(), 8, format).unwrap();
        model.next_logits(&batch(&[&ids[..length]]), Some(&mut cache)).unwrap();
        cache
    };
    let next = |cache: &mut KvCache, rows: &[&[i64]]| model.next_logits(&batch(rows), Some(cache)).unwrap();
    let alone = next(&mut read(5), &[&ids[5..6]]);
    let mut joined = KvCache::join(vec![read(3), read(5)]).unwrap();
    let together = next(&mut joined, &[&ids[3..4], &ids[5..6]]);
    assert!(difference(together.narrow(0, 1, 1), alone.clone()) < 1e-4);
    let mut longer = read(9);
    longer.truncate(5);
    assert!(difference(next(&mut longer, &[&ids[5..6]]), alone) < 1e-4);
    let mut plain = KvCache::new(model.config(), 8);
    model.next_logits(&batch(&[&ids[..3]]), Some(&mut plain)).unwrap();
    assert!(KvCache::join(vec![read(3), plain]).is_err());
}

#[test]
fn keys_and_values_of_heads_are_not_quantised() {
    let (model, _) = open("mistral");
    for quantisation in Quantisation::ALL {
        let format = CacheFormat::Quantised(quantisation);
        let errors = [
            KvCache::in_format(model.config(), 8, format).unwrap_err(),
            model.for_cache(format).unwrap_err(),
            format.bytes_per_token(model.config()).unwrap_err(),
        ];
        for error in errors.map(|error| error.to_string()) {
            assert!(
                error.contains(&quantisation.to_string()) && error.contains("bf16"),
                "{error}"
            );
        }
    }
    assert!(model.for_cache(StorageDtype::Bf16.into()).is_ok());
}
