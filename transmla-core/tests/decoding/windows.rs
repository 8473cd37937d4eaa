//! Layers with windows forget what no later token sees, and decode as if they had not.

use std::ops::Range;
use std::path::Path;

use burn::tensor::{Device, Tensor};
use transmla_core::RawConfig;
use transmla_core::synthetic::write_random_model;
use transmla_core::{CacheFormat, Decoder, KvCache, LayeredModel, Quantisation, Residency, StorageDtype};

use crate::models::{batch, difference, open};

const LATENT: &str = r#"{
    "model_type": "mistralmla", "architectures": ["MistralMLAForCausalLM"], "vocab_size": 256, "hidden_size": 64,
    "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 4,
    "kv_lora_rank": 32, "q_lora_rank": null, "qk_rope_head_dim": 16, "qk_nope_head_dim": 16, "v_head_dim": 16,
    "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "sliding_window": 24,
    "hidden_act": "silu", "tie_word_embeddings": false, "torch_dtype": "float32"
}"#;

/// Of all models here.
const WINDOW: usize = 24;

/// Most rows that such a layer keeps between two steps.
const MOST: usize = WINDOW + WINDOW / 4;

const TOKENS: usize = 120;

/// Windows in every layer, in some layers, and over latents.
fn models(folder: &Path) -> Vec<Decoder> {
    let grouped = ["mistral-window", "gemma3"].map(|family| open(family).0);
    let config = RawConfig::parse(LATENT.as_bytes()).unwrap();
    let path = folder.join("latent");
    write_random_model(config, &path, StorageDtype::F32, u64::MAX, 5).unwrap();
    let latent = Decoder::open(&path, &Device::flex(), Residency::Loaded).unwrap();
    grouped.into_iter().chain([latent]).collect()
}

fn tokens(model: &Decoder, range: Range<usize>) -> Vec<i64> {
    let of = |index: usize| ((index * index + 7 * index + 3) % model.config().vocab_size) as i64;
    range.map(of).collect()
}

/// Logits behind the first tokens of a text, without a cache.
fn expected(model: &Decoder, end: usize) -> Tensor<2> {
    model.next_logits(&batch(&[&tokens(model, 0..end)]), None).unwrap()
}

fn feed(model: &Decoder, cache: &mut KvCache, range: Range<usize>) -> Tensor<2> {
    let found = model
        .next_logits(&batch(&[&tokens(model, range)]), Some(cache))
        .unwrap();
    Tensor::from_data(found.into_data(), &Device::flex())
}

/// Bytes of a text's rows where layers with windows keep `rows`.
fn bytes(model: &Decoder, all: usize, rows: usize) -> usize {
    let config = model.config();
    let of = |layer| match config.attention_parameters(layer).window {
        Some(_) => rows,
        None => all,
    };
    let rows: usize = (0..config.num_hidden_layers).map(of).sum();
    rows * config.attention.cache_numbers() * 4
}

#[test]
fn what_no_later_token_sees_is_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        assert_eq!(model.config().attention_parameters(0).window, Some(WINDOW));
        for device in [Device::flex(), Device::flex().autodiff()] {
            let model = model.on_device(&device);
            for first in [3, 29, 30, 31, 70] {
                let mut cache = KvCache::new(model.config(), TOKENS);
                let mut end = 0;
                for piece in std::iter::once(first).chain([1, 5, 1, 40].into_iter().cycle()) {
                    let range = end..TOKENS.min(end + piece);
                    end = range.end;
                    let found = feed(&model, &mut cache, range);
                    let worst = difference(found, expected(&model, end));
                    assert!(worst < 1e-4, "{first}: {worst} behind {end}");
                    assert_eq!(cache.lengths(), [end]);
                    let (least, most) = [WINDOW - 1, MOST].map(|rows| bytes(&model, end, rows.min(end))).into();
                    assert!((least..=most).contains(&cache.bytes()), "{first}: {}", cache.bytes());
                    if end == TOKENS {
                        break;
                    }
                }
                // Pieces of 40 tokens are there whole while they are read.
                let room = bytes(&model, TOKENS, 2 * (MOST + 40));
                assert!(cache.allocated_bytes() <= room, "{} of {room}", cache.allocated_bytes());
            }
        }
    }
}

/// A long text is not kept by every layer until the last has read it, and its room is given back.
#[test]
fn the_room_of_a_long_text_is_given_back() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        let mut cache = KvCache::new(model.config(), TOKENS);
        feed(&model, &mut cache, 0..TOKENS);
        assert_eq!(cache.bytes(), bytes(&model, TOKENS, WINDOW - 1));
        assert_eq!(cache.allocated_bytes(), bytes(&model, TOKENS, MOST + 1));
        let mut filled = KvCache::new(model.config(), TOKENS);
        filled.fill_at_random(1, TOKENS, model.device()).unwrap();
        assert_eq!(filled.bytes(), cache.bytes());
    }
}

#[test]
fn a_text_goes_on_behind_what_windows_still_show_or_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        let mut cache = KvCache::new(model.config(), TOKENS);
        feed(&model, &mut cache, 0..40);
        for index in 40..44 {
            feed(&model, &mut cache, index..index + 1);
        }
        cache.truncate(41);
        assert_eq!(cache.lengths(), [41]);
        let found = feed(&model, &mut cache, 41..42);
        assert!(difference(found, expected(&model, 42)) < 1e-4);
        let mut earlier = cache.clone();
        earlier.truncate(30);
        assert_eq!((earlier.lengths(), earlier.bytes()), (&[0][..], 0));
        let found = feed(&model, &mut earlier, 0..35);
        assert!(difference(found, expected(&model, 35)) < 1e-4);
        cache.truncate(0);
        assert_eq!((cache.lengths(), cache.bytes()), (&[0][..], 0));
    }
}

/// Sequences forget each on its own, also when others begin again.
#[test]
fn sequences_forget_each_on_its_own() {
    let folder = tempfile::tempdir().unwrap();
    for model in models(folder.path()) {
        for device in [Device::flex(), Device::flex().autodiff()] {
            let model = model.on_device(&device);
            let caches = [4, 50, 29].map(|length| {
                let mut cache = KvCache::new(model.config(), TOKENS);
                feed(&model, &mut cache, 0..length);
                cache
            });
            let mut cache = KvCache::join(caches.to_vec()).unwrap();
            let mut ends = [4, 50, 29];
            for step in 0..12 {
                if step == 5 {
                    cache.restart(1);
                    ends[1] = 0;
                }
                let rows = ends.map(|end| tokens(&model, end..end + 1));
                let found = model
                    .next_logits(&batch(&[&rows[0], &rows[1], &rows[2]]), Some(&mut cache))
                    .unwrap();
                let found = Tensor::<2>::from_data(found.into_data(), &Device::flex());
                ends = ends.map(|end| end + 1);
                for (row, end) in ends.into_iter().enumerate() {
                    let worst = difference(found.clone().narrow(0, row, 1), expected(&model, end));
                    assert!(worst < 1e-4, "sequence {row} behind {end}: {worst}");
                }
            }
            assert_eq!(cache.lengths(), ends);
        }
    }
}

#[test]
fn quantised_rows_are_forgotten_alike() {
    let folder = tempfile::tempdir().unwrap();
    let model = models(folder.path()).pop().unwrap();
    let format = CacheFormat::Quantised(Quantisation::Int8);
    let model = model.for_cache(format).unwrap();
    let mut cache = KvCache::in_format(model.config(), TOKENS, format).unwrap();
    feed(&model, &mut cache, 0..50);
    let mut end = 50;
    while end < 70 {
        let found = feed(&model, &mut cache, end..end + 1);
        end += 1;
        let exact = expected(&model, end);
        let spread = exact.clone().abs().max().into_scalar::<f32>();
        let worst = difference(found, exact);
        assert!(worst < 0.05 * spread, "{worst} of {spread} behind {end}");
    }
    let rows = cache.bytes() / cache.bytes_per_token();
    assert!((WINDOW - 1..=MOST).contains(&rows), "{rows}");
}
