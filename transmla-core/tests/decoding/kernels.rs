//! The fused decoding kernel against plain tensor operations, in every format.

use burn::tensor::{Device, Distribution, Tensor, TensorData};
use proptest::prelude::*;
use transmla_core::StorageDtype;
use transmla_core::kernels::{
    AttentionParameters, CachedHead, CachedValues, DecodeShape, Quantisation, QuantisedRow, Stored, decode,
    decode_tensors, plain_decode,
};

const DTYPES: [StorageDtype; 3] = [StorageDtype::F32, StorageDtype::Bf16, StorageDtype::F16];

fn random(dims: [usize; 4], spread: f64) -> Tensor<4> {
    Tensor::random(dims, Distribution::Normal(0.0, spread), &Device::flex())
}

fn values(tensor: &Tensor<4>) -> Vec<f32> {
    tensor.clone().into_data().iter::<f32>().collect()
}

/// Rows `[batch, heads, longest, width]` as buffers of each sequence's own length, and as the tensor of what they keep.
fn stored(rows: &Tensor<4>, lengths: &[usize], dtype: StorageDtype) -> (Vec<Stored>, Tensor<4>) {
    stored_in(rows, lengths, &|| Stored::with_capacity(dtype, 1))
}

fn stored_in(rows: &Tensor<4>, lengths: &[usize], empty: &dyn Fn() -> Stored) -> (Vec<Stored>, Tensor<4>) {
    let [batch, heads, longest, width] = rows.dims();
    let all = values(rows);
    let mut kept = Vec::new();
    let buffers = (0..batch * heads).map(|head| {
        let mut buffer = empty();
        buffer.extend(&all[head * longest * width..][..lengths[head / heads] * width]);
        buffer.as_slice().append_to(&mut kept);
        kept.resize((head + 1) * longest * width, 0.0);
        buffer
    });
    let buffers = buffers.collect();
    let kept = Tensor::from_data(TensorData::new(kept, rows.dims()), &Device::flex());
    (buffers, kept)
}

#[derive(Debug, Clone)]
struct Case {
    groups: usize,
    shared: usize,
    new: usize,
    width: usize,
    value_width: usize,
    past: Vec<usize>,
}

impl Case {
    /// Largest difference of the two, with values of their own and with values that are a part of the keys.
    fn difference(&self, parameters: &AttentionParameters, dtype: StorageDtype, latent: bool) -> f32 {
        let value_width = match latent {
            true => self.value_width.min(self.width),
            false => self.value_width,
        };
        let batch = self.past.len();
        let lengths: Vec<usize> = self.past.iter().map(|past| past + self.new).collect();
        let longest = lengths.iter().copied().max().unwrap();
        let q = random([batch, self.groups * self.shared, self.new, self.width], 2.0);
        let (key_buffers, keys) = stored(&random([batch, self.groups, longest, self.width], 1.0), &lengths, dtype);
        let (value_buffers, values_kept) = match latent {
            true => (Vec::new(), keys.clone().narrow(3, 0, value_width)),
            false => stored(
                &random([batch, self.groups, longest, value_width], 1.0),
                &lengths,
                dtype,
            ),
        };
        let heads: Vec<CachedHead<'_>> = (0..batch * self.groups)
            .map(|head| CachedHead {
                keys: key_buffers[head].as_slice(),
                values: value_buffers.get(head).map(Stored::as_slice),
            })
            .collect();
        let shape = DecodeShape {
            shared: self.shared,
            new: self.new,
            width: self.width,
            value_width,
            scales: 0,
        };
        let found = decode(&shape, parameters, &values(&q), &heads);
        let expected = values(&plain_decode(q, keys, values_kept, &lengths, parameters));
        assert_eq!(found.len(), expected.len());
        found
            .iter()
            .zip(&expected)
            .map(|(a, b)| (a - b).abs())
            .fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst })
    }
}

/// Scales behind each cached key, of as many equal shares of the heads, against keys that are multiplied by them.
#[test]
fn scales_of_scores_are_factors_of_keys() {
    let (new, width, value_width, past) = (2, 24, 16, [700, 90]);
    let (heads, scales) = (6, 3);
    let lengths = past.map(|past| past + new);
    let q = random([2, heads, new, width], 2.0);
    let parameters = AttentionParameters {
        softcap: Some(3.0),
        window: Some(300),
        ..AttentionParameters::of_width(width)
    };
    for dtype in DTYPES {
        let (buffers, rows) = stored(&random([2, 1, lengths[0], width + scales], 1.0), &lengths, dtype);
        let cached: Vec<CachedHead<'_>> = buffers
            .iter()
            .map(|keys| CachedHead {
                keys: keys.as_slice(),
                values: None,
            })
            .collect();
        let shape = DecodeShape {
            shared: heads,
            new,
            width,
            value_width,
            scales,
        };
        let found = decode(&shape, &parameters, &values(&q), &cached);
        let of_head = |head: usize| {
            let scale = rows.clone().narrow(3, width + head / (heads / scales), 1);
            rows.clone().narrow(3, 0, width) * scale
        };
        let keys = Tensor::cat((0..heads).map(of_head).collect(), 1);
        let kept = rows.clone().narrow(3, 0, value_width).repeat_dim(1, heads);
        let expected = plain_decode(q.clone(), keys, kept, &lengths, &parameters);
        let on_device = decode_tensors(
            q.clone(),
            rows,
            CachedValues::InScaledKeys {
                width: value_width,
                scales,
            },
            &lengths,
            &parameters,
        );
        let expected = values(&expected);
        for found in [found, values(&on_device)] {
            let worst = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) < 2e-5, "{dtype}");
            assert!(found.iter().all(|value| value.is_finite()));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn fused_equals_plain(
        groups in 1usize..4, shared in 1usize..6, new in 1usize..5, width in 1usize..40, value_width in 1usize..40,
        past in prop::collection::vec(0usize..180, 1..4), window in 1usize..200, bounded: bool, windowed: bool,
        latent: bool, dtype in 0usize..3,
    ) {
        let case = Case { groups, shared, new, width, value_width, past };
        let parameters = AttentionParameters {
            scale: 0.3,
            softcap: bounded.then_some(3.0),
            window: windowed.then_some(window),
        };
        let difference = case.difference(&parameters, DTYPES[dtype], latent);
        prop_assert!(difference < 2e-5, "{}", difference);
    }
}

/// A quantised latent cache: the fused kernel reads codes, the oracle the numbers that they stand for. `scales` numbers behind each row
/// multiply the scores of their share of the heads.
fn quantised_difference(
    [shared, new, latent, rope, scales]: [usize; 5],
    past: &[usize],
    parameters: &AttentionParameters,
    quantisation: Quantisation,
) -> f32 {
    let (heads, width) = (shared * scales.max(1), latent + rope);
    let row = QuantisedRow::new(quantisation, latent, rope + scales);
    let lengths: Vec<usize> = past.iter().map(|past| past + new).collect();
    let longest = lengths.iter().copied().max().unwrap();
    let q = random([past.len(), heads, new, width], 2.0);
    let rows = random([past.len(), 1, longest, row.numbers()], 1.0);
    let (buffers, kept) = stored_in(&rows, &lengths, &|| Stored::quantised(row, 1));
    for (buffer, length) in buffers.iter().zip(&lengths) {
        assert_eq!(buffer.len(), length * row.numbers());
    }
    let cached: Vec<CachedHead<'_>> = buffers
        .iter()
        .map(|keys| CachedHead {
            keys: keys.as_slice(),
            values: None,
        })
        .collect();
    let shape = DecodeShape {
        shared: heads,
        new,
        width,
        value_width: latent,
        scales,
    };
    let found = decode(&shape, parameters, &values(&q), &cached);
    let keys = kept.clone().narrow(3, 0, width);
    let keys = match scales {
        0 => keys,
        _ => {
            let of_head = |head: usize| keys.clone() * kept.clone().narrow(3, width + head / shared, 1);
            Tensor::cat((0..heads).map(of_head).collect(), 1)
        }
    };
    let groups = keys.dims()[1];
    let of_each = kept.narrow(3, 0, latent).repeat_dim(1, groups);
    let expected = values(&plain_decode(q, keys, of_each, &lengths, parameters));
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(&expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, |worst, x| if x > worst || x.is_nan() { x } else { worst })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn fused_reads_quantised_rows(
        shared in 1usize..7, new in 1usize..5, latent in 1usize..80, rope in 1usize..20, scales in 0usize..4,
        past in prop::collection::vec(0usize..180, 1..4), window in 1usize..200, bounded: bool, windowed: bool,
    ) {
        let parameters = AttentionParameters {
            scale: 0.3,
            softcap: bounded.then_some(3.0),
            window: windowed.then_some(window),
        };
        for quantisation in Quantisation::ALL {
            let shape = [shared, new, latent, rope, scales];
            let difference = quantised_difference(shape, &past, &parameters, quantisation);
            prop_assert!(difference < 2e-5, "{}: {}", quantisation, difference);
        }
    }
}

/// Latents of SmolLM2 and of DeepSeek, long enough to be split among threads.
#[test]
fn fused_reads_quantised_rows_at_real_shapes() {
    for [shared, latent, rope] in [[9, 64, 32], [9, 128, 32], [16, 512, 64]] {
        for quantisation in Quantisation::ALL {
            let parameters = AttentionParameters::of_width(latent + rope);
            let difference =
                quantised_difference([shared, 1, latent, rope, 0], &[1500, 700], &parameters, quantisation);
            assert!(difference < 2e-5, "{quantisation} {latent}: {difference}");
        }
    }
}

/// Real dimensions, long enough to be split among threads: SmolLM2, a latent of 512 + 64, multi-head attention.
#[test]
fn fused_equals_plain_at_real_shapes() {
    for (groups, shared, width, value_width, latent) in [
        (3, 3, 64, 64, false),
        (1, 32, 576, 512, true),
        (1, 9, 128, 96, true),
        (4, 1, 128, 128, false),
    ] {
        for dtype in DTYPES {
            let case = Case {
                groups,
                shared,
                new: 1,
                width,
                value_width,
                past: vec![1500, 700],
            };
            let parameters = AttentionParameters::of_width(width);
            let window = AttentionParameters {
                window: Some(600),
                ..parameters
            };
            for parameters in [parameters, window] {
                let difference = case.difference(&parameters, dtype, latent);
                assert!(difference < 2e-5, "{case:?} {dtype} {parameters:?}: {difference}");
            }
        }
    }
}
