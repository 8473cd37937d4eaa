//! Times of the fused kernel on caches in bf16, as a model calls it: several calls are under way before the first is waited for.

use std::time::Instant;

use anyhow::Context;
use burn::tensor::{DType, Device, Distribution, Tensor};
use serde_json::json;
use transmla_core::kernels::{AttentionParameters, CachedValues, decode_is_fused, decode_tensors};

/// Seconds that one measurement should last.
const LASTING: f64 = 0.02;

/// Measurements, whose median is told.
const MEASUREMENTS: usize = 5;

/// The new token of each sequence and all that is cached.
#[derive(Debug, Clone, Copy)]
struct Problem {
    batch: usize,
    heads: usize,
    groups: usize,
    tokens: usize,
    width: usize,
    value_width: usize,
    latent: bool,
}

impl Problem {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let kind = words.next()?;
        let sizes: Vec<usize> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        match (kind, &sizes[..]) {
            ("latent", &[batch, heads, tokens, width, value_width]) => Some(Self {
                batch,
                heads,
                groups: 1,
                tokens,
                width,
                value_width,
                latent: true,
            }),
            ("grouped", &[batch, heads, groups, tokens, width]) => Some(Self {
                batch,
                heads,
                groups,
                tokens,
                width,
                value_width: width,
                latent: false,
            }),
            _ => None,
        }
    }

    /// Bytes of the cache, each of which must be read once.
    fn bytes(&self) -> usize {
        let numbers = self.width + if self.latent { 0 } else { self.value_width };
        2 * self.batch * self.groups * self.tokens * numbers
    }

    fn operations(&self) -> usize {
        2 * self.batch * self.heads * self.tokens * (self.width + self.value_width)
    }
}

pub(super) fn run(device: &Device, problems: &[&str]) -> anyhow::Result<()> {
    for text in problems {
        let problem = Problem::parse(text).with_context(|| format!("'{text}' is no problem"))?;
        let (fused, seconds) = measure(&problem, device)?;
        println!(
            "{}",
            json!({"problem": text, "fused": fused, "seconds": seconds, "bytes": problem.bytes(),
                "operations": problem.operations()})
        );
    }
    Ok(())
}

/// Whether the kernel takes it, and the seconds of a call.
fn measure(problem: &Problem, device: &Device) -> anyhow::Result<(bool, f64)> {
    let random = |dims: [usize; 4]| Tensor::<4>::random(dims, Distribution::Normal(0.0, 1.0), device);
    let Problem {
        batch,
        heads,
        groups,
        tokens,
        width,
        value_width,
        latent,
    } = *problem;
    // In pieces: all of it in f32 would not fit where it fits in bf16.
    let rows = |width: usize| {
        let piece = || random([1, groups, tokens, width]).cast(DType::BF16);
        Tensor::cat((0..batch).map(|_| piece()).collect(), 0)
    };
    let q = random([batch, heads, 1, width]);
    let keys = rows(width);
    let values = match latent {
        true => CachedValues::InKeys(value_width),
        false => CachedValues::Apart(rows(value_width)),
    };
    let lengths = vec![tokens; batch];
    let parameters = AttentionParameters::of_width(width);
    let fused = decode_is_fused(&q, &keys, &values, &lengths, &parameters);
    let calls = |count: usize| -> anyhow::Result<f64> {
        let started = Instant::now();
        for _ in 0..count {
            std::hint::black_box(decode_tensors(
                q.clone(),
                keys.clone(),
                values.clone(),
                &lengths,
                &parameters,
            ));
        }
        device.sync()?;
        Ok(started.elapsed().as_secs_f64() / count as f64)
    };
    // The first has a kernel to compile, the second memory to take.
    calls(1)?;
    let once = calls(2)?;
    let count = ((LASTING / once) as usize).clamp(3, 200);
    let mut times = (0..MEASUREMENTS)
        .map(|_| calls(count))
        .collect::<Result<Vec<f64>, _>>()?;
    times.sort_by(f64::total_cmp);
    Ok((fused, times[times.len() / 2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_parsed_and_counted() {
        let latent = Problem::parse("latent 128 32 4096 576 512").unwrap();
        assert_eq!(latent.bytes(), 128 * 4096 * 576 * 2);
        assert_eq!(latent.operations(), 2 * 128 * 32 * 4096 * (576 + 512));
        let grouped = Problem::parse("grouped 2 32 8 1024 128").unwrap();
        assert_eq!(grouped.bytes(), 2 * 8 * 1024 * 256 * 2);
        for text in ["", "latent", "latent 1 2 3 4", "grouped 1 2 3 4 x", "dense 1 2 3 4 5"] {
            assert!(Problem::parse(text).is_none(), "{text}");
        }
    }
}
