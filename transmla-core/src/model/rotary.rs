//! Rotary position embedding applied to tensors.

use std::ops::Range;

use burn::tensor::{Device, Tensor, TensorData};
use transmla_checkpoint::config::{LayerRopes, RopeConfig};

/// Cosines and sines of a range of positions, shared by the layers that turn alike.
///
/// Inside the decoders pairs are always half-split: interleaved projections are reordered once, when they are read.
#[derive(Debug, Clone)]
pub struct Rotary {
    cos: Tensor<4>, // [1 or batch, 1, positions, d/2]
    sin: Tensor<4>,
    positions: Range<usize>,
}

impl Rotary {
    /// The table for some positions.
    pub fn new(rope: &RopeConfig, positions: Range<usize>, device: &Device) -> Self {
        let (cos, sin) = rope.angles(positions.clone());
        let shape = [1, 1, positions.len(), rope.dim / 2];
        Self {
            cos: Tensor::from_data(TensorData::new(cos, shape), device),
            sin: Tensor::from_data(TensorData::new(sin, shape), device),
            positions,
        }
    }

    /// The table for `count` tokens of each of several sequences, which begin at different positions.
    pub fn of_each(rope: &RopeConfig, starts: &[usize], count: usize, device: &Device) -> Self {
        let first = starts.first().copied().unwrap_or(0);
        if starts.iter().all(|start| *start == first) {
            return Self::new(rope, first..first + count, device);
        }
        let each = starts
            .iter()
            .map(|start| Self::new(rope, *start..start + count, device));
        let (cos, sin) = each.map(|table| (table.cos, table.sin)).unzip();
        Self {
            cos: Tensor::cat(cos, 0),
            sin: Tensor::cat(sin, 0),
            positions: first..first + count,
        }
    }

    /// The positions of the table, those of the first sequence if they differ.
    pub fn positions(&self) -> Range<usize> {
        self.positions.clone()
    }

    /// The same table for tensors of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            cos: self.cos.autodiff(),
            sin: self.sin.autodiff(),
            ..self
        }
    }

    /// Rotates `[batch, heads, positions, d]`, pairs half-split.
    pub fn apply(&self, x: Tensor<4>) -> Tensor<4> {
        let half = x.dims()[3] / 2;
        let re = x.clone().narrow(3, 0, half);
        let im = x.narrow(3, half, half);
        Tensor::cat(
            vec![
                re.clone() * self.cos.clone() - im.clone() * self.sin.clone(),
                re * self.sin.clone() + im * self.cos.clone(),
            ],
            3,
        )
    }
}

/// The [`Rotary`] of each layer of a forward pass, one table for all layers that turn alike.
#[derive(Debug, Clone)]
pub struct LayerRotary {
    ropes: LayerRopes,
    tables: Vec<Rotary>,
}

impl LayerRotary {
    /// The tables for some positions.
    pub fn new(ropes: &LayerRopes, positions: Range<usize>, device: &Device) -> Self {
        Self::made(ropes, |rope| Rotary::new(rope, positions.clone(), device))
    }

    /// The tables for `count` tokens of each of several sequences, which begin at different positions.
    pub fn of_each(ropes: &LayerRopes, starts: &[usize], count: usize, device: &Device) -> Self {
        Self::made(ropes, |rope| Rotary::of_each(rope, starts, count, device))
    }

    fn made(ropes: &LayerRopes, make: impl Fn(&RopeConfig) -> Rotary) -> Self {
        Self {
            ropes: ropes.clone(),
            tables: ropes.kinds().iter().map(make).collect(),
        }
    }

    /// The table of a layer.
    pub fn of(&self, layer: usize) -> &Rotary {
        &self.tables[self.ropes.kind_of(layer)]
    }

    /// The same tables for tensors of an autodiff graph.
    pub fn autodiff(self) -> Self {
        Self {
            tables: self.tables.into_iter().map(Rotary::autodiff).collect(),
            ..self
        }
    }
}
