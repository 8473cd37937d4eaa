//! What a layer with experts takes of memory while texts go through it, counted by the allocator. One test, so that nothing else
//! allocates meanwhile.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::tensor::{Device, Tensor, TensorData};
use serde_json::json;
use transmla_core::checkpoint::StorageDtype;
use transmla_core::model::LayerRotary;
use transmla_core::synthetic::write_random_model;
use transmla_core::{CoreError, Decoder, DecoderLayer, LayeredModel, Residency, TokenBatch, host_values};

/// The system's allocator with a count of bytes.
struct Counting;

static IN_USE: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn taken(bytes: usize) {
    let now = IN_USE.fetch_add(bytes, Ordering::Relaxed) + bytes;
    MOST.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator as it is.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: the caller's promise about the layout is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        taken(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        IN_USE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer came from the system's allocator with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// Most bytes that a computation holds beyond those in use before.
fn most<T>(run: impl FnOnce() -> T) -> (usize, T) {
    let before = IN_USE.load(Ordering::Relaxed);
    MOST.store(before, Ordering::Relaxed);
    let result = run();
    (MOST.load(Ordering::Relaxed).saturating_sub(before), result)
}

const EXPERTS: usize = 24;
const HIDDEN: usize = 64;
const WIDTH: usize = 512;
/// One expert in f32.
const EXPERT: usize = 3 * HIDDEN * WIDTH * 4;
const BATCHES: usize = 4;
const TOKENS: usize = 16;

/// 24 experts of which a token goes to 8: a batch goes to nearly all.
fn model(place: &Path) -> Decoder {
    let config = json!({
        "model_type": "qwen3_moe", "hidden_size": HIDDEN, "intermediate_size": 32, "moe_intermediate_size": WIDTH,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "vocab_size": 64,
        "num_experts": EXPERTS, "num_experts_per_tok": 8, "norm_topk_prob": true, "rms_norm_eps": 1e-6, "rope_theta": 1e4,
        "hidden_act": "silu", "tie_word_embeddings": true, "max_position_embeddings": 64, "decoder_sparse_step": 1,
        "mlp_only_layers": [], "attention_bias": false, "use_sliding_window": false,
    });
    let config = config.as_object().unwrap().clone();
    let folder = write_random_model(config, &place.join("model"), StorageDtype::Bf16, 1 << 30, 1).unwrap();
    Decoder::open(&folder, &Device::flex(), Residency::Streamed).unwrap()
}

fn texts(model: &Decoder) -> Vec<Tensor<3>> {
    let text = |batch: usize| {
        let ids = (0..TOKENS)
            .map(|token| ((token * 7 + batch * 13) % 64) as i64)
            .collect();
        model.embed(&TokenBatch::from_ids(ids, 1, TOKENS).unwrap()).unwrap()
    };
    (0..BATCHES).map(text).collect()
}

/// The texts behind a layer.
fn through(layer: &DecoderLayer, rotary: &LayerRotary, mut texts: Vec<Tensor<3>>) -> Result<Vec<Vec<f32>>, CoreError> {
    let mut attend = |_, hidden| Ok(layer.attend(hidden, rotary.of(0), None));
    layer.forward_each(&mut texts, &mut attend, &mut || ())?;
    texts
        .into_iter()
        .map(|text| host_values(text.flatten::<2>(0, 1)))
        .collect()
}

/// By one thread: each has room of its own for products, which it takes at its first.
#[test]
fn one_expert_is_in_memory_at_a_time() {
    let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    one.install(pass_and_gradient);
}

fn pass_and_gradient() {
    let place = tempfile::tempdir().unwrap();
    let model = model(place.path());
    let rotary = LayerRotary::new(&model.config().rope, 0..TOKENS, model.device());
    let gradient = Tensor::<2>::from_data(
        TensorData::new(vec![0.5f32; TOKENS * HIDDEN], [TOKENS, HIDDEN]),
        model.device(),
    );
    let middle = texts(&model).swap_remove(0).flatten::<2>(0, 1);
    // Whatever is made at the first use of a device or a thread, such as the room in which products rearrange their operands.
    let layer = model.layer(0).unwrap();
    through(&layer, &rotary, texts(&model)).unwrap();
    layer.feed_forward_gradient(middle.clone(), gradient.clone()).unwrap();
    drop(layer);

    let (read, layer) = most(|| model.layer(0).unwrap());
    assert!(read < EXPERT, "reading takes {read}, an expert {EXPERT}");
    let given = texts(&model);
    let (passed, behind) = most(|| through(&layer, &rotary, given).unwrap());
    let (back, slope) = most(|| {
        let slope = layer.feed_forward_gradient(middle.clone(), gradient.clone()).unwrap();
        host_values(slope).unwrap()
    });
    println!("an expert {EXPERT}, a pass {passed}, a gradient {back}");
    for held in [passed, back] {
        // One, what it is made of, and what little text goes through it; not the 24 of the layer.
        assert!(
            (EXPERT..4 * EXPERT).contains(&held),
            "{held} bytes, an expert has {EXPERT}"
        );
    }

    // The count sees a layer that is whole, and that is the same layer.
    let (held, whole) = most(|| model.layer(0).unwrap().whole().unwrap());
    assert!(held >= EXPERTS * EXPERT, "{held}");
    let given = texts(&model);
    let (beside, same) = most(|| through(&whole, &rotary, given).unwrap());
    assert!(beside < EXPERT, "nothing is read: {beside}");
    assert_eq!(behind, same);
    let of_whole = whole.feed_forward_gradient(middle, gradient).unwrap();
    assert_eq!(slope, host_values(of_whole).unwrap());

    // Texts one by one give the same as together.
    for (text, behind) in texts(&model).into_iter().zip(behind) {
        let alone = layer.forward(text, rotary.of(0), None).unwrap();
        assert_eq!(host_values(alone.flatten::<2>(0, 1)).unwrap(), behind);
    }
}
