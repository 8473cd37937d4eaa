//! The number formats that engines load weights in.

use std::fmt;

use burn::tensor::{Tensor, TensorData};
use half::f16;
use transmla_checkpoint::StorageDtype;

use super::attention::kind::Attention;
use super::attention::latent::{LatentAttention, QueryProjection};
use super::linear::{Linear, RmsNorm};
use crate::error::CoreError;
use crate::host::host_values;

/// A number format that an engine loads weights in, whatever they are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NumberFormat {
    /// bfloat16, weights and activations.
    Bf16,
    /// IEEE half precision, weights and activations.
    Fp16,
    /// ggml's `Q8_0`: matrices in blocks of 32 numbers of 8 bits with a scale of half precision; vectors as they are.
    Q8_0,
}

/// Numbers that share a scale in `Q8_0`.
const BLOCK: usize = 32;

impl NumberFormat {
    /// Every one.
    pub const ALL: [Self; 3] = [Self::Bf16, Self::Fp16, Self::Q8_0];

    /// The 16-bit format that activations have too, if they do.
    fn storage(self) -> Option<StorageDtype> {
        match self {
            Self::Bf16 => Some(StorageDtype::Bf16),
            Self::Fp16 => Some(StorageDtype::F16),
            Self::Q8_0 => None,
        }
    }

    /// Rounds a matrix whose rows have `width` numbers to what the format holds; what is too large becomes infinite.
    pub fn round_matrix(self, values: &mut [f32], width: usize) {
        match self.storage() {
            Some(dtype) => values.iter_mut().for_each(|value| *value = dtype.round(*value)),
            // Blocks run along a row; a row that is no multiple of a block ends in a short one.
            None => values
                .chunks_mut(width.max(1))
                .flat_map(|row| row.chunks_mut(BLOCK))
                .for_each(round_block),
        }
    }

    pub(super) fn matrix<const D: usize>(self, tensor: Tensor<D>) -> Result<Tensor<D>, CoreError> {
        let (shape, device) = (tensor.dims(), tensor.device());
        let mut values = host_values(tensor)?;
        self.round_matrix(&mut values, shape[D - 1]);
        Ok(Tensor::from_data(TensorData::new(values, shape), &device))
    }

    pub(super) fn vector(self, tensor: Tensor<1>) -> Result<Tensor<1>, CoreError> {
        match self.storage() {
            Some(_) => self.matrix(tensor),
            None => Ok(tensor),
        }
    }

    pub(super) fn linear(self, linear: Linear) -> Result<Linear, CoreError> {
        Ok(Linear {
            weight: self.matrix(linear.weight)?,
            bias: linear.bias.map(|bias| self.vector(bias)).transpose()?,
        })
    }

    pub(super) fn norm(self, norm: RmsNorm) -> Result<RmsNorm, CoreError> {
        Ok(RmsNorm {
            weight: self.vector(norm.weight)?,
            rounding: self.storage(),
            ..norm
        })
    }

    pub(super) fn optional_norm(self, norm: Option<RmsNorm>) -> Result<Option<RmsNorm>, CoreError> {
        norm.map(|norm| self.norm(norm)).transpose()
    }

    pub(super) fn attention(self, attention: Attention) -> Result<Attention, CoreError> {
        Ok(match attention {
            Attention::Grouped(mut it) => {
                it.q = self.linear(it.q)?;
                it.k = self.linear(it.k)?;
                it.v = self.linear(it.v)?;
                it.o = self.linear(it.o)?;
                it.q_norm = self.optional_norm(it.q_norm)?;
                it.k_norm = self.optional_norm(it.k_norm)?;
                Attention::Grouped(it)
            }
            Attention::Latent(it) => Attention::Latent(self.latent(it)?),
            // Never saved, so never loaded in another format.
            Attention::Decoupled(it) => Attention::Decoupled(it),
        })
    }

    fn latent(self, mut it: LatentAttention) -> Result<LatentAttention, CoreError> {
        it.q = match it.q {
            QueryProjection::Plain(q) => QueryProjection::Plain(self.linear(q)?),
            QueryProjection::Lora { down, norm, up } => QueryProjection::Lora {
                down: self.linear(down)?,
                norm: self.optional_norm(norm)?,
                up: self.linear(up)?,
            },
        };
        if let Some(heads) = it.q_heads.as_mut() {
            heads.norm = self.norm(heads.norm.clone())?;
            heads.rope = self.matrix(heads.rope.clone())?;
        }
        if let Some(scale) = it.key_scale.as_mut() {
            scale.k = self.linear(scale.k.clone())?;
            scale.gain = self.vector(scale.gain.clone())?;
        }
        it.kv_down = self.linear(it.kv_down)?;
        it.kv_norm = self.optional_norm(it.kv_norm)?;
        it.kv_up = it.kv_up.map(|up| self.linear(up)).transpose()?;
        it.o = self.linear(it.o)?;
        Ok(it)
    }
}

impl fmt::Display for NumberFormat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bf16 => "bf16",
            Self::Fp16 => "fp16",
            Self::Q8_0 => "Q8_0",
        })
    }
}

/// A block of `Q8_0` and back: the scale is the largest number over 127, in half precision.
fn round_block(block: &mut [f32]) {
    let largest = block.iter().fold(0.0f32, |largest, value| largest.max(value.abs()));
    let exact = largest / 127.0;
    let scale = f16::from_f32(exact).to_f32();
    for value in block {
        let quantum = if exact > 0.0 { (*value / exact).round() } else { 0.0 };
        *value = quantum * scale;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_flushes_what_it_cannot_hold() {
        let mut values = [1e-9, 4e-8, 6.0e-5, 1.0 / 3.0, 1e6];
        NumberFormat::Fp16.round_matrix(&mut values, 5);
        assert_eq!(values[0], 0.0);
        assert_eq!(values[1], 2.0f32.powi(-24));
        assert!((values[2] / 6.0e-5 - 1.0).abs() < 1e-3);
        assert!((values[3] * 3.0 - 1.0).abs() < 5e-4 && values[3] != 1.0 / 3.0);
        assert!(values[4].is_infinite());
    }

    /// The scale of a block is in half precision: a block below 127 times its least number vanishes.
    #[test]
    fn blocks_lose_what_their_scale_loses() {
        let mut values: Vec<f32> = (0..64).map(|i| (i as f32 - 31.5) / 32.0).collect();
        let before = values.clone();
        values.extend(before.iter().map(|value| value * 1e-6));
        NumberFormat::Q8_0.round_matrix(&mut values, 64);
        for (found, value) in values[..64].iter().zip(&before) {
            assert!(
                (found - value).abs() <= 1.001 / 254.0 + 5e-4 * value.abs(),
                "{value}: {found}"
            );
        }
        assert!(values[64..].iter().all(|value| *value == 0.0));
        // Rows of 40 numbers: blocks of 32 and of 8.
        let mut row = vec![0.0f32; 40];
        (row[0], row[39]) = (100.0, 0.01);
        NumberFormat::Q8_0.round_matrix(&mut row, 40);
        assert!((row[39] - 0.01).abs() < 1e-5 && (row[0] - 100.0).abs() < 0.1);
    }
}
