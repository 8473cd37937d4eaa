//! The basis of a latent that loses least when it is quantised.
//!
//! A latent is read through `kv_b_proj` alone, so that any invertible map of it changes nothing if `kv_b_proj` has the inverse. What
//! does change is what rounding costs. Rounded with one step Δ for all its numbers, a latent y = T c with moments Σ of c costs
//! Δ²/12 · tr(T⁻ᵀ M T⁻¹), where M = `kv_b_proj`ᵀ `kv_b_proj` says what an error costs behind it. Δ follows the largest number, so
//! that for a given sum of variances it is least where all numbers have the same. Of all T = R D with D diagonal and R orthogonal,
//! dᵢ⁴ = Mᵢᵢ / Σᵢᵢ minimises the product of the sum of variances and the cost; R makes the variances equal and depends on nothing.

use burn::tensor::{Tensor, TensorData};

use super::attention::kind::Attention;
use super::attention::latent::LatentAttention;
use super::layer::DecoderLayer;
use super::linear::{Linear, RmsNorm};
use crate::error::CoreError;
use crate::host::host_values;

/// Share of the mean below which a moment is taken for this share.
const LEAST: f64 = 1e-6;

impl DecoderLayer {
    /// The same layer with its latent in the basis that loses least when it is quantised; the same where there is none.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails.
    pub(super) fn for_quantised_cache(self) -> Result<Self, CoreError> {
        Ok(match self.attention {
            // Latents of groups stay in the basis that they are written in: a map is for all of them, or for none.
            Attention::Latent(latent) if !latent.shape.is_grouped() => {
                let attention = match latent.kv_up.clone() {
                    None => latent,
                    Some(up) => {
                        let scales = scales(&latent, &up, self.input_norm.as_ref())?;
                        latent.in_scaled_basis(up, &scales)
                    }
                };
                Self {
                    attention: Attention::Latent(attention),
                    ..self
                }
            }
            attention => Self { attention, ..self },
        })
    }
}

impl LatentAttention {
    /// The same attention with its latent, which `up` reads, multiplied by `R diag(scales)`, R orthogonal.
    fn in_scaled_basis(self, up: Linear, scales: &[f64]) -> Self {
        let rank = scales.len();
        let device = up.weight.device();
        let rotation = rotation(rank);
        let matrix = |entry: &dyn Fn(usize, usize) -> f64| {
            let numbers: Vec<f32> = (0..rank * rank).map(|i| entry(i / rank, i % rank) as f32).collect();
            Tensor::<2>::from_data(TensorData::new(numbers, [rank, rank]), &device)
        };
        let map = matrix(&|i, j| rotation[i * rank + j] * scales[j]);
        // The transpose of the inverse.
        let back = matrix(&|i, j| rotation[i * rank + j] / scales[j]);
        let kv_up = Some(Linear {
            weight: up.weight.matmul(back.transpose()),
            bias: up.bias,
        });
        match self.kv_norm {
            Some(_) => Self {
                latent_map: Some(match self.latent_map {
                    Some(before) => map.matmul(before),
                    None => map,
                }),
                kv_up,
                ..self
            },
            // Without a norm in between the map is a part of the projection.
            None => Self {
                kv_down: with_first_rows(self.kv_down, &map),
                kv_up,
                ..self
            },
        }
    }
}

/// A projection whose first outputs, as many as the map has, are multiplied by it.
fn with_first_rows(linear: Linear, map: &Tensor<2>) -> Linear {
    let ([rows, width], first) = (linear.weight.dims(), map.dims()[0]);
    let changed = map.clone().matmul(linear.weight.clone().narrow(0, 0, first));
    let rest = linear.weight.narrow(0, first, rows - first);
    let bias = linear.bias.map(|bias| {
        let column = bias.clone().narrow(0, 0, first).reshape([first, 1]);
        let changed = map.clone().matmul(column).reshape([first]);
        Tensor::cat(vec![changed, bias.narrow(0, first, rows - first)], 0)
    });
    debug_assert_eq!(changed.dims()[1], width);
    Linear {
        weight: Tensor::cat(vec![changed, rest], 0),
        bias,
    }
}

/// The fourth root of what an error of each number costs, by its mean square.
fn scales(attention: &LatentAttention, up: &Linear, input_norm: Option<&RmsNorm>) -> Result<Vec<f64>, CoreError> {
    let rank = attention.shape.kv_lora_rank;
    // Behind their norm the inputs have a mean square of one in each channel, but for the norm's weight. Without a norm channels are
    // taken for alike: a factor that all of them have changes nothing.
    let mut inputs = attention.kv_down.weight.clone().narrow(0, 0, rank);
    if let Some(norm) = input_norm {
        inputs = inputs * norm.weight.clone().unsqueeze();
    }
    let mut squares = floored(host_values(inputs.square().sum_dim(1))?);
    if let Some(norm) = &attention.kv_norm {
        for (square, weight) in squares.iter_mut().zip(host_values(norm.weight.clone())?) {
            *square *= f64::from(weight).powi(2);
        }
    }
    let costs = floored(host_values(up.weight.clone().square().sum_dim(0))?);
    Ok(costs
        .iter()
        .zip(&squares)
        .map(|(cost, square)| (cost / square).powf(0.25))
        .collect())
}

/// Squares that nothing is divided by zero for.
fn floored(squares: Vec<f32>) -> Vec<f64> {
    let mean = squares.iter().map(|square| f64::from(*square)).sum::<f64>() / squares.len().max(1) as f64;
    let least = (LEAST * mean).max(f64::MIN_POSITIVE);
    squares.into_iter().map(|square| f64::from(square).max(least)).collect()
}

/// An orthogonal matrix `[n, n]`, row-major, each of whose rows takes about as much of every number: with signs that have no
/// pattern, the product of a Hadamard matrix for the power of two in n and a discrete Hartley transform for the rest of it.
fn rotation(n: usize) -> Vec<f64> {
    let power = 1 << n.trailing_zeros();
    let rest = n / power;
    let angle = |i: usize, j: usize| std::f64::consts::TAU * ((i * j) % rest) as f64 / rest as f64;
    let entry = |i: usize, j: usize| {
        let hadamard = match ((i / rest) & (j / rest)).count_ones() % 2 {
            0 => 1.0,
            _ => -1.0,
        };
        let hartley = angle(i % rest, j % rest).cos() + angle(i % rest, j % rest).sin();
        sign(j) * hadamard * hartley / (n as f64).sqrt()
    };
    (0..n * n).map(|index| entry(index / n, index % n)).collect()
}

/// A sign for each column that follows no pattern of its index: the highest bit of a multiplicative hash.
fn sign(index: usize) -> f64 {
    let hash = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    match (hash ^ hash >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 63 {
        0 => 1.0,
        _ => -1.0,
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use transmla_checkpoint::{AttentionConfig, ModelConfig};

    use super::*;
    use crate::model::attention::latent::QueryProjection;
    use crate::model::rotary::Rotary;

    #[test]
    fn rotations_are_orthogonal_and_even() {
        for n in [1, 2, 3, 12, 28, 64, 96, 112] {
            let rotation = rotation(n);
            for i in 0..n {
                for j in 0..n {
                    let product: f64 = (0..n).map(|k| rotation[i * n + k] * rotation[j * n + k]).sum();
                    assert!((product - f64::from(u8::from(i == j))).abs() < 1e-12, "{n}: {i} {j}");
                }
            }
            let largest = rotation.iter().fold(0.0f64, |largest, entry| largest.max(entry.abs()));
            assert!(largest <= (2.0 / n as f64).sqrt() + 1e-12, "{n}: {largest}");
        }
        let signs: f64 = (0..512).map(sign).sum();
        assert!(signs.abs() < 60.0, "{signs}");
    }

    fn attention(with_norm: bool) -> (ModelConfig, LatentAttention) {
        let json = serde_json::json!({
            "model_type": "llamamla", "kv_lora_rank": 12, "qk_rope_head_dim": 4, "qk_nope_head_dim": 6, "v_head_dim": 5,
            "hidden_size": 16, "intermediate_size": 1, "num_hidden_layers": 1, "vocab_size": 1, "num_attention_heads": 3,
        });
        let serde_json::Value::Object(keys) = json else {
            panic!("an object");
        };
        let config = ModelConfig::from_json(keys).unwrap();
        let AttentionConfig::Latent(shape) = config.attention.clone() else {
            panic!("llamamla is a latent family");
        };
        let random = |out: usize, input: usize| {
            Tensor::<2>::random([out, input], Distribution::Normal(0.0, 0.3), &Device::flex())
        };
        let vector = |width: usize| random(1, width).reshape([width]);
        let attention = LatentAttention {
            q: QueryProjection::Plain(Linear::new(random(30, 16))),
            q_heads: None,
            key_scale: None,
            kv_down: Linear {
                weight: random(16, 16),
                bias: Some(vector(16)),
            },
            kv_norm: with_norm.then(|| RmsNorm::new(vector(12).add_scalar(1.0), 1e-6)),
            latent_map: None,
            kv_up: Some(Linear::new(random(33, 12))),
            o: Linear::new(random(16, 15)),
            heads: 3,
            shape,
            parameters: config.attention_parameters(0),
        };
        (config, attention)
    }

    /// With a norm in between and without, biases included; a basis on top of another too.
    #[test]
    fn another_basis_is_the_same_attention() {
        let device = Device::flex();
        for with_norm in [true, false] {
            let (config, attention) = attention(with_norm);
            let x = Tensor::<2>::random([7, 16], Distribution::Normal(0.0, 1.0), &device);
            let rotary = Rotary::new(config.rope.of(0), 0..7, &device);
            let forward =
                |attention: LatentAttention| Attention::Latent(attention).forward(x.clone(), 1, &rotary, None);
            let expected = forward(attention.clone());
            let norm = RmsNorm::new(Tensor::ones([16], &device), 1e-6);
            let up = |attention: &LatentAttention| attention.kv_up.clone().unwrap();
            let scales = scales(&attention, &up(&attention), Some(&norm)).unwrap();
            assert!(
                scales.iter().any(|scale| (scale / scales[0] - 1.0).abs() > 0.1),
                "{scales:?}"
            );
            let turned = attention.clone().in_scaled_basis(up(&attention), &scales);
            assert_eq!(turned.latent_map.is_some(), with_norm);
            let twice = turned.clone().in_scaled_basis(up(&turned), &scales);
            for found in [turned, twice] {
                let apart = (forward(found) - expected.clone()).abs().max().into_scalar::<f32>();
                assert!(apart < 1e-5, "{with_norm}: {apart}");
            }
        }
    }

    #[test]
    fn nothing_is_divided_by_zero() {
        assert_eq!(floored(vec![0.0, 4.0]), [2e-6, 4.0]);
        assert!(floored(vec![0.0, 0.0]).iter().all(|square| *square > 0.0));
    }
}
