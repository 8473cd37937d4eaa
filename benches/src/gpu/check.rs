//! The fused kernel against plain tensor operations on the CPU: a GPU's own products may be rounded ([`product`]).

use burn::tensor::{DType, Device, Distribution, Tensor};
use serde_json::json;
use transmla_core::kernels::{AttentionParameters, CachedValues, decode_is_fused, decode_tensors, plain_decode};

/// One step of decoding.
#[derive(Debug, Clone, Copy)]
struct Case {
    groups: usize,
    shared: usize,
    new: usize,
    width: usize,
    value_width: usize,
    latent: bool,
}

const fn case(groups: usize, shared: usize, new: usize, width: usize, value_width: usize, latent: bool) -> Case {
    Case {
        groups,
        shared,
        new,
        width,
        value_width,
        latent,
    }
}

/// SmolLM2, multi-head and grouped heads of 128, latents of many and few heads, several new tokens, widths that are no whole matrices, and
/// a head wider than a cube.
const CASES: [Case; 11] = [
    case(3, 3, 1, 64, 64, false),
    case(4, 1, 1, 128, 128, false),
    case(8, 4, 1, 128, 128, false),
    case(1, 32, 1, 576, 512, true),
    case(1, 128, 1, 576, 512, true),
    case(1, 16, 1, 576, 512, true),
    case(1, 9, 1, 128, 96, true),
    case(1, 9, 3, 160, 96, true),
    case(2, 5, 4, 48, 80, false),
    case(2, 3, 2, 33, 20, false),
    case(1, 2, 1, 1100, 1040, true),
];

/// Tokens before the new ones, for each sequence.
const PAST: [usize; 3] = [1500, 700, 3];

/// Rows behind the longest sequence.
const ROOM: usize = 36;

pub(super) fn run(device: &Device) -> anyhow::Result<()> {
    let mut wrong = product(device);
    for case in CASES {
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            if !device.supports_dtype(dtype) {
                continue;
            }
            let plain = AttentionParameters::of_width(case.width);
            let window = AttentionParameters {
                window: Some(600),
                softcap: Some(3.0),
                ..plain
            };
            for (name, parameters) in [("all", plain), ("window", window)] {
                let (fused, error) = case.compare(device, dtype, &parameters);
                // Matrix instructions round queries and weights to the format of the cache.
                let limit = match dtype {
                    DType::F16 => 2e-3,
                    DType::BF16 => 1e-2,
                    _ => 1e-5,
                };
                let right = error < limit;
                wrong += usize::from(!right);
                println!(
                    "{}",
                    json!({"check": format!("{case:?}"), "scores": name, "dtype": format!("{dtype:?}"), "fused": fused,
                        "error": error, "limit": limit, "right": right})
                );
            }
        }
    }
    match wrong {
        0 => Ok(()),
        _ => anyhow::bail!("{wrong} results are wrong"),
    }
}

/// A plain product of f32 matrices against the CPU's: whether burn rounds numbers to a shorter format for it, which conversions
/// would feel. Gives the number of wrong results.
fn product(device: &Device) -> usize {
    let random = || Tensor::<4>::random([1, 1, 1024, 1024], Distribution::Normal(0.0, 1.0), device);
    let (a, b) = (random(), random());
    let host = |tensor: &Tensor<4>| tensor.clone().to_device(&Device::flex());
    let expected = host(&a).matmul(host(&b));
    let (error, limit) = (relative_error(&a.matmul(b), &expected), 1e-3);
    let right = error < limit;
    println!(
        "{}",
        json!({"check": "product of 1024 x 1024", "dtype": "product", "fused": false, "error": error, "limit": limit, "right": right})
    );
    usize::from(!right)
}

impl Case {
    /// Whether the kernel takes it, and the relative error of the result in the Euclidean norm; not a number if a number is not.
    fn compare(self, device: &Device, dtype: DType, parameters: &AttentionParameters) -> (bool, f64) {
        let random = |dims: [usize; 4], spread| Tensor::<4>::random(dims, Distribution::Normal(0.0, spread), device);
        let lengths = PAST.map(|past| past + self.new);
        let longest = lengths[0];
        let rows = |width| random([PAST.len(), self.groups, longest + ROOM, width], 1.0).cast(dtype);
        let q = random([PAST.len(), self.groups * self.shared, self.new, self.width], 2.0);
        let keys = rows(self.width);
        let values = match self.latent {
            true => CachedValues::InKeys(self.value_width),
            false => CachedValues::Apart(rows(self.value_width)),
        };
        let fused = decode_is_fused(&q, &keys, &values, &lengths, parameters);
        let found = decode_tensors(q.clone(), keys.clone(), values.clone(), &lengths, parameters);
        let host = |tensor: Tensor<4>| tensor.cast(DType::F32).to_device(&Device::flex());
        let seen = |rows: Tensor<4>| host(rows.narrow(2, 0, longest));
        let keys = seen(keys);
        let values = match values {
            CachedValues::Apart(values) => seen(values),
            CachedValues::InKeys(width) | CachedValues::InScaledKeys { width, .. } => keys.clone().narrow(3, 0, width),
        };
        let expected = plain_decode(host(q), keys, values, &lengths, parameters);
        (fused, relative_error(&found, &expected))
    }
}

/// ‖found − expected‖ / ‖expected‖.
fn relative_error(found: &Tensor<4>, expected: &Tensor<4>) -> f64 {
    let numbers = |tensor: &Tensor<4>| tensor.clone().into_data().iter::<f32>().collect::<Vec<f32>>();
    let (mut difference, mut norm) = (0.0, 0.0);
    for (found, expected) in numbers(found).into_iter().zip(numbers(expected)) {
        difference += f64::from(found - expected).powi(2);
        norm += f64::from(expected).powi(2);
    }
    (difference / norm).sqrt()
}
