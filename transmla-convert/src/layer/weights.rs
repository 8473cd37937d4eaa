//! Attention weights on the host in f64, with biases as one more column.

use burn::tensor::{Device, Tensor, TensorData};
use faer::{Mat, MatRef};
use transmla_core::model::{Linear, layer_prefix};
use transmla_core::{CoreError, Decoder, LayeredModel};

use crate::layer::key_norm::LinearKeys;
use crate::spec::plan::Plan;

/// Query, key and value weights of one layer, `[rows, hidden]` or `[rows, hidden + 1]`.
pub(crate) struct HostWeights {
    pub q: Mat<f64>,
    pub k: Mat<f64>,
    pub v: Mat<f64>,
}

impl HostWeights {
    /// The weights of a layer; `fitted` key weights go before its own.
    pub fn read(source: &Decoder, plan: &Plan, layer: usize, fitted: Option<&LinearKeys>) -> Result<Self, CoreError> {
        let grouped = plan.grouped();
        let queries = plan.source().num_attention_heads * grouped.head_dim;
        Ok(Self {
            q: read(source, plan, layer, "q_proj", queries)?,
            k: match fitted {
                Some(fitted) => fitted.weights(),
                None => Self::read_keys(source, plan, layer)?,
            },
            v: read(source, plan, layer, "v_proj", grouped.key_width())?,
        })
    }

    /// The key weights alone.
    pub fn read_keys(source: &Decoder, plan: &Plan, layer: usize) -> Result<Mat<f64>, CoreError> {
        read(source, plan, layer, "k_proj", plan.grouped().key_width())
    }
}

fn read(source: &Decoder, plan: &Plan, layer: usize, name: &str, rows: usize) -> Result<Mat<f64>, CoreError> {
    let hidden = source.config().hidden_size;
    let prefix = format!("{}.self_attn.{name}", layer_prefix(layer));
    let weight = source
        .checkpoint()
        .values(&format!("{prefix}.weight"), &[rows, hidden])?;
    let name = format!("{prefix}.bias");
    let bias = match plan.grouped().qkv_bias {
        true if source.checkpoint().contains(&name) => Some(source.checkpoint().values(&name, &[rows])?),
        // Some models have biases on some projections alone: the others are zero.
        true => Some(vec![0.0; rows]),
        false => None,
    };
    let columns = hidden + usize::from(bias.is_some());
    Ok(Mat::from_fn(rows, columns, |i, j| match &bias {
        Some(bias) if j == hidden => f64::from(bias[i]),
        _ => f64::from(weight[i * hidden + j]),
    }))
}

/// A matrix with or without a bias column, split into `f32` weight (row-major) and bias.
pub(crate) fn split_bias(matrix: MatRef<'_, f64>, hidden: usize) -> (Vec<f32>, Option<Vec<f32>>) {
    let mut weight = Vec::with_capacity(matrix.nrows() * hidden);
    for i in 0..matrix.nrows() {
        weight.extend((0..hidden).map(|j| matrix[(i, j)] as f32));
    }
    let bias = (matrix.ncols() > hidden).then(|| (0..matrix.nrows()).map(|i| matrix[(i, hidden)] as f32).collect());
    (weight, bias)
}

/// The same as an affine map on a device.
pub(crate) fn to_linear(matrix: MatRef<'_, f64>, hidden: usize, device: &Device) -> Linear {
    let rows = matrix.nrows();
    let (weight, bias) = split_bias(matrix, hidden);
    Linear {
        weight: Tensor::from_data(TensorData::new(weight, [rows, hidden]), device),
        bias: bias.map(|bias| Tensor::from_data(TensorData::new(bias, [rows]), device)),
    }
}
