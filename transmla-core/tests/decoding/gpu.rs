//! The fused kernel for GPUs against plain tensor operations, and whole models on such a device. A software adapter will do.

use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Distribution, Tensor};
use proptest::prelude::*;
use transmla_core::kernels::{AttentionParameters, CachedValues, decode_is_fused, decode_tensors, plain_decode};
use transmla_core::{Decoder, DeviceChoice, KvCache, LayeredModel, Residency};

use super::models::{FAMILIES, batch, check_together, open};

/// The GPU that is tested; nothing, and a reason printed, where there is none.
fn device() -> Option<Device> {
    static DEVICE: OnceLock<Option<Device>> = OnceLock::new();
    let open = || {
        let choice = match cfg!(feature = "cuda") {
            true => DeviceChoice::Cuda(0),
            false => DeviceChoice::Wgpu(0),
        };
        choice.open().inspect_err(|error| eprintln!("left out: {error}")).ok()
    };
    DEVICE.get_or_init(open).clone()
}

/// Largest difference that a format explains: matrix instructions, which CUDA has, round queries and weights to the cache's.
fn limit(dtype: DType) -> f32 {
    match dtype {
        DType::F16 if cfg!(feature = "cuda") => 4e-3,
        DType::BF16 if cfg!(feature = "cuda") => 3e-2,
        _ => 2e-5,
    }
}

#[derive(Debug, Clone)]
struct Case {
    groups: usize,
    shared: usize,
    new: usize,
    width: usize,
    value_width: usize,
    past: Vec<usize>,
    /// Rows behind the longest sequence.
    room: usize,
    latent: bool,
    dtype: DType,
}

impl Case {
    /// Largest difference to plain operations on the CPU: a GPU may round the numbers of its products.
    fn difference(&self, parameters: &AttentionParameters, device: &Device) -> f32 {
        let random = |dims: [usize; 4], spread| Tensor::<4>::random(dims, Distribution::Normal(0.0, spread), device);
        let batch = self.past.len();
        let lengths: Vec<usize> = self.past.iter().map(|past| past + self.new).collect();
        let longest = lengths.iter().copied().max().unwrap();
        let rows = |width| random([batch, self.groups, longest + self.room, width], 1.0).cast(self.dtype);
        let q = random([batch, self.groups * self.shared, self.new, self.width], 2.0);
        let keys = rows(self.width);
        let values = match self.latent {
            true => CachedValues::InKeys(self.value_width.min(self.width)),
            false => CachedValues::Apart(rows(self.value_width)),
        };
        assert!(decode_is_fused(&q, &keys, &values, &lengths, parameters), "{self:?}");
        let found = decode_tensors(q.clone(), keys.clone(), values.clone(), &lengths, parameters);
        let host = |tensor: Tensor<4>| tensor.cast(DType::F32).to_device(&Device::flex());
        let seen = |rows: Tensor<4>| host(rows.narrow(2, 0, longest));
        let keys = seen(keys);
        let values = match values {
            CachedValues::Apart(values) => seen(values),
            CachedValues::InKeys(width) | CachedValues::InScaledKeys { width, .. } => keys.clone().narrow(3, 0, width),
        };
        let expected = plain_decode(host(q), keys, values, &lengths, parameters);
        assert_eq!(found.dims(), expected.dims());
        worst(&found, &expected)
    }
}

/// Largest difference; not a number if there is one.
fn worst(found: &Tensor<4>, expected: &Tensor<4>) -> f32 {
    let numbers = |tensor: &Tensor<4>| tensor.clone().into_data().iter::<f32>().collect::<Vec<_>>();
    numbers(found)
        .iter()
        .zip(numbers(expected))
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn fused_equals_plain(
        groups in 1usize..4, shared in 1usize..6, new in 1usize..5, width in 1usize..40, value_width in 1usize..40,
        past in prop::collection::vec(0usize..400, 1..4), room in 0usize..9, window in 1usize..200, bounded: bool,
        windowed: bool, latent: bool,
    ) {
        let case = Case { groups, shared, new, width, value_width, past, room, latent, dtype: DType::F32 };
        let parameters = AttentionParameters {
            scale: 0.3,
            softcap: bounded.then_some(3.0),
            window: windowed.then_some(window),
        };
        let Some(device) = device() else { return Ok(()) };
        let difference = case.difference(&parameters, &device);
        prop_assert!(difference < 2e-5, "{}", difference);
    }
}

/// Real dimensions, long enough to be split among cubes: SmolLM2, latents of many and few heads, multi-head attention, and a
/// head wider than a cube; in every format that the device knows.
#[test]
fn fused_equals_plain_at_real_shapes() {
    let Some(device) = device() else { return };
    for (groups, shared, width, value_width, latent) in [
        (3, 3, 64, 64, false),
        (1, 128, 576, 512, true),
        (1, 32, 576, 512, true),
        (1, 9, 128, 96, true),
        (4, 1, 128, 128, false),
        (1, 2, 1100, 1040, true),
    ] {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let case = Case {
                groups,
                shared,
                new: 1,
                width,
                value_width,
                past: vec![1500, 700],
                room: 36,
                latent,
                dtype,
            };
            let parameters = AttentionParameters::of_width(width);
            let window = AttentionParameters {
                window: Some(600),
                ..parameters
            };
            for parameters in [parameters, window] {
                let difference = case.difference(&parameters, &device);
                assert!(difference < limit(dtype), "{case:?} {parameters:?}: {difference}");
            }
        }
    }
}

/// What the kernel does not take goes the plain way and gives the same.
#[test]
fn other_calls_go_the_plain_way() {
    let Some(device) = device() else { return };
    let random = |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), &device);
    let (q, keys) = (random([1, 4, 1, 16]), random([1, 2, 9, 16]));
    let (parameters, values) = (AttentionParameters::of_width(16), CachedValues::InKeys(8));
    let fused =
        |q: &Tensor<4>, keys: &Tensor<4>, lengths: &[usize]| decode_is_fused(q, keys, &values, lengths, &parameters);
    assert!(fused(&q, &keys, &[9]));
    assert!(!fused(&q, &keys, &[10]));
    assert!(!fused(&q, &keys, &[9, 9]));
    assert!(!fused(
        &q.clone().to_device(&Device::flex()),
        &keys.clone().to_device(&Device::flex()),
        &[9]
    ));
    let recorded = Tensor::from_data(q.clone().into_data(), &device.clone().autodiff());
    assert!(!fused(&recorded, &keys, &[9]));
    let decoded = |q, keys| decode_tensors(q, keys, values.clone(), &[7], &parameters);
    let expected = decoded(q.clone(), keys.clone());
    let host = decoded(q.to_device(&Device::flex()), keys.to_device(&Device::flex()));
    assert!(worst(&expected, &host) < 2e-5);
}

/// From the cache as without one, on this device.
#[test]
fn models_decode_as_they_compute() {
    let Some(device) = device() else { return };
    for family in FAMILIES {
        let (model, ids) = open(family);
        check_together(&model.on_device(&device), &ids, 1e-4);
    }
}

/// The tokens that a trained model writes when it always takes the likeliest.
#[test]
fn a_trained_model_writes_the_same_text_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
    let model = Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap();
    let written = |model: &Decoder| {
        let mut cache = KvCache::new(model.config(), 64);
        let mut text = vec![1i64];
        while text.len() < 64 {
            let logits = model
                .next_logits(&batch(&[&text[text.len() - 1..]]), Some(&mut cache))
                .unwrap();
            let logits: Vec<f32> = logits.into_data().iter::<f32>().collect();
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            text.push(best.unwrap() as i64);
        }
        text
    };
    assert_eq!(written(&model.on_device(&device)), written(&model));
}
