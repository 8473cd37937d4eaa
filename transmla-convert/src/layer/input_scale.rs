//! How large the normalised input of a layer's attention is made, so that neither it nor the rows of small latents lose digits.
//!
//! `input_layernorm` is multiplied by a power of two and every projection that reads it divided by it: the same function. A small
//! input makes ordinary numbers of the rows of a latent that its norm wants small; too small an input loses digits itself.

use std::ops::Range;

use burn::tensor::Tensor;
use transmla_core::model::Linear;
use transmla_core::{CoreError, DecoderLayer, host_values};

use crate::layer::rounding::{SUBNORMAL_ERROR, power_of_two};
use crate::layer::stream::CalibrationStream;

/// Rows of a projection of the normalised input.
pub(crate) struct Reader {
    /// The rows as they are multiplied with the input.
    weight: Tensor<2>,
    /// Sum of all squares.
    power: f64,
    /// The largest number.
    largest: f64,
    /// For a latent: mean over blocks of 32 of the square of the block's largest number, after the rows are multiplied by what
    /// its norm wants.
    blocks: Option<f64>,
}

/// Numbers that share a scale in ggml's formats of 8 bits and fewer.
const BLOCK: usize = 32;

/// What the largest number of a block is divided by for the scale (`Q8_0`).
const BLOCK_STEPS: f64 = 127.0;

/// Tokens that tell how large what a projection gives is: only a power of two follows from it.
const ENOUGH_TOKENS: usize = 4096;

/// Most that a weight may become: an eighth of what half precision holds.
const LARGEST_WEIGHT: f64 = 8192.0;

impl Reader {
    /// Some rows of a projection; `scales` are what the rows of a latent are to be multiplied by.
    pub(crate) fn new(projection: &Linear, rows: Range<usize>, scales: Option<&[f64]>) -> Result<Self, CoreError> {
        let columns = projection.weight.dims()[1];
        let weight = projection.weight.clone().narrow(0, rows.start, rows.len());
        let values = host_values(weight.clone().reshape([rows.len() * columns]))?;
        let size = |value: &f32| f64::from(value.abs());
        let blocks = scales.map(|scales| {
            let rows = values.chunks_exact(columns.max(1)).zip(scales);
            let largest = rows.flat_map(|(row, scale)| {
                let of_block = move |block: &[f32]| scale * block.iter().map(size).fold(0.0, f64::max);
                row.chunks(BLOCK).map(of_block)
            });
            let (mut sum, mut count) = (0.0f64, 0u32);
            for largest in largest {
                sum += largest * largest;
                count += 1;
            }
            sum / f64::from(count.max(1))
        });
        Ok(Self {
            power: values.iter().map(|value| size(value).powi(2)).sum(),
            largest: values.iter().map(size).fold(0.0, f64::max),
            weight,
            blocks,
        })
    }
}

/// For each reader the mean over the text's tokens of the squared length of what it gives.
fn outputs(readers: &[Reader], stream: &CalibrationStream, layer: &DecoderLayer) -> Result<Vec<f64>, CoreError> {
    let (mut sums, mut tokens) = (vec![0.0f64; readers.len()], 0usize);
    stream.inputs(layer, &mut |x| {
        if tokens >= ENOUGH_TOKENS {
            return Ok(());
        }
        tokens += x.dims()[0];
        for (sum, reader) in sums.iter_mut().zip(readers) {
            let projection = Linear::new(reader.weight.clone());
            let squares: Tensor<1> = projection.forward(x.clone()).square().sum_dim(1).flatten(0, 1);
            *sum += host_values(squares)?.into_iter().map(f64::from).sum::<f64>();
        }
        Ok(())
    })?;
    Ok(sums.into_iter().map(|sum| sum / tokens.max(1) as f64).collect())
}

/// What `input_layernorm` is multiplied by: a power of two for which the digits that half precision lacks of the input, and
/// those that the scales of 8-bit blocks lack of the latents' rows, cost least together; 1 where there is no such norm.
pub(crate) fn input_scale(
    readers: &[Reader],
    stream: &CalibrationStream,
    layer: &DecoderLayer,
) -> Result<f64, CoreError> {
    let Some(norm) = &layer.input_norm else {
        return Ok(1.0);
    };
    let (mut of_input, mut of_blocks) = (0.0, 0.0);
    for (reader, output) in readers.iter().zip(outputs(readers, stream, layer)?) {
        if output > 0.0 && reader.power > 0.0 {
            // The input is rounded, and so is the weight of the norm that makes it.
            of_input += 2.0 * SUBNORMAL_ERROR.powi(2) * reader.power / output;
        }
        if let Some(blocks) = reader.blocks.filter(|blocks| *blocks > 0.0) {
            of_blocks += (BLOCK_STEPS * SUBNORMAL_ERROR).powi(2) / blocks;
        }
    }
    let norm = host_values(norm.weight.clone())?;
    let largest = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let least = largest(&mut readers.iter().map(|reader| reader.largest)) / LARGEST_WEIGHT;
    let most = LARGEST_WEIGHT / largest(&mut norm.into_iter().map(|value| f64::from(value.abs())));
    Ok(balanced(of_input, of_blocks, least, most))
}

/// The power of two p for which `of_input / p² + of_blocks · p²` is least.
fn balanced(of_input: f64, of_blocks: f64, least: f64, most: f64) -> f64 {
    let best = match of_input > 0.0 && of_blocks > 0.0 {
        true => (of_input / of_blocks).powf(0.25),
        false => 1.0,
    };
    let next = |value: f64, round: fn(f64) -> f64| round(value.log2()).exp2();
    let (least, most) = (next(least, f64::ceil), next(most, f64::floor));
    power_of_two(best).min(most).max(least)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_balances_both_losses() {
        assert_eq!(balanced(1.0, 16.0, 1e-9, 1e9), 0.5);
        assert_eq!(balanced(1.0, 1.0, 3.0, 1e9), 4.0);
        assert_eq!(balanced(16.0, 1.0, 1e-9, 0.9), 0.5);
        assert_eq!(balanced(0.0, 1.0, 1e-9, 1e9), 1.0);
    }
}
