//! Causal attention with grouped keys, and its gradient.

use burn::tensor::activation::softmax;
use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, DType, Device, Tensor, TensorData};

use super::host::{self, Problem};

/// Softmax attention with scale `width^-1/2`; query row i sees keys up to `past + i`.
///
/// On the CPU this is one fused pass; elsewhere, and where gradients are recorded, burn's own operation.
///
/// # Shapes
/// q `[batch, H, new, width]`, k `[batch, G, past + new, width]`, v `[batch, G, past + new, d_v]` with H a multiple of G;
/// result `[batch, H, new, d_v]`.
pub fn causal_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    if on_host(&q)
        && let Some(result) = fused(&q, &k, &v)
    {
        return result;
    }
    let heads = q.dims()[1];
    let (new, tokens) = (q.dims()[2], k.dims()[2]);
    let (mask, is_causal) = match tokens - new {
        0 => (None, true),
        _ if new == 1 => (None, false),
        past => (Some(future_mask(new, past, &q.device()).unsqueeze()), false),
    };
    let options = AttentionModuleOptions {
        is_causal,
        ..Default::default()
    };
    burn_attention(q, repeat_heads(k, heads), repeat_heads(v, heads), mask, None, options)
}

/// The same from plain tensor operations: what every other form is tested against.
pub fn plain_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let v = repeat_heads(v, q.dims()[1]);
    probabilities(&q, &k).matmul(v)
}

/// Gradients with respect to the inputs of [`causal_attention`], each of its input's shape.
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    /// Of the queries.
    pub q: Tensor<4>,
    /// Of the keys.
    pub k: Tensor<4>,
    /// Of the values.
    pub v: Tensor<4>,
}

/// The gradient of [`causal_attention`], given that at its result.
///
/// Nothing has to be kept from the forward pass: probabilities are computed again, block by block.
pub fn attention_gradients(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, output: Tensor<4>) -> AttentionGradients {
    if on_host(&q)
        && let Some(result) = fused_gradients(&q, &k, &v, &output)
    {
        return result;
    }
    plain_attention_gradients(q, k, v, output)
}

/// The same from plain tensor operations.
pub fn plain_attention_gradients(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, output: Tensor<4>) -> AttentionGradients {
    let [_, heads, _, width] = q.dims();
    let groups = k.dims()[1];
    let p = probabilities(&q, &k); // [batch, H, new, tokens]
    let dp = output.clone().matmul(repeat_heads(v, heads).swap_dims(2, 3));
    let mean = (dp.clone() * p.clone()).sum_dim(3);
    let ds = (p.clone() * (dp - mean)).mul_scalar((width as f64).powf(-0.5));
    AttentionGradients {
        q: ds.clone().matmul(repeat_heads(k, heads)),
        k: sum_heads(ds.swap_dims(2, 3).matmul(q), groups),
        v: sum_heads(p.swap_dims(2, 3).matmul(output), groups),
    }
}

fn probabilities(q: &Tensor<4>, k: &Tensor<4>) -> Tensor<4> {
    let [batch, heads, new, width] = q.dims();
    let tokens = k.dims()[2];
    let scores = q
        .clone()
        .mul_scalar((width as f64).powf(-0.5))
        .matmul(repeat_heads(k.clone(), heads).swap_dims(2, 3));
    let mask = future_mask(new, tokens - new, &q.device()).unsqueeze::<4>();
    softmax(
        scores.mask_fill(mask.expand([batch, heads, new, tokens]), f32::NEG_INFINITY),
        3,
    )
}

/// Repeats each of G heads for the query heads that share it: `[batch, G, seq, width]` to `[batch, H, seq, width]`.
pub(crate) fn repeat_heads(x: Tensor<4>, heads: usize) -> Tensor<4> {
    let [batch, groups, sequence, width] = x.dims();
    if groups == heads {
        return x;
    }
    x.unsqueeze_dim::<5>(2)
        .expand([batch, groups, heads / groups, sequence, width])
        .reshape([batch, heads, sequence, width])
}

/// The transpose of [`repeat_heads`].
fn sum_heads(x: Tensor<4>, groups: usize) -> Tensor<4> {
    let [batch, heads, sequence, width] = x.dims();
    if groups == heads {
        return x;
    }
    x.reshape([batch, groups, heads / groups, sequence * width])
        .sum_dim(2)
        .reshape([batch, groups, sequence, width])
}

/// True where a key lies in the future: `[new, past + new]`.
pub(crate) fn future_mask(new: usize, past: usize, device: &Device) -> Tensor<2, Bool> {
    Tensor::<2, Bool>::tril_mask([new, past + new], past as i64, device)
}

fn on_host(tensor: &Tensor<4>) -> bool {
    !tensor.is_autodiff() && tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}

/// Nothing if the shapes are not those of attention: the caller's ordinary path then says what is wrong.
fn fused(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>) -> Option<Tensor<4>> {
    let problem = Problem::new(q.dims(), k.dims(), v.dims())?;
    let [q, k, v] = [q, k, v].map(|tensor| tensor.clone().try_into_data().ok());
    let (q, k, v) = (q?, k?, v?);
    let mut output = vec![0.0; problem.output_len()];
    host::forward(
        &problem,
        q.as_slice().ok()?,
        k.as_slice().ok()?,
        v.as_slice().ok()?,
        &mut output,
    );
    Some(Tensor::from_data(
        TensorData::new(output, problem.output_dims()),
        &Device::flex(),
    ))
}

fn fused_gradients(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, output: &Tensor<4>) -> Option<AttentionGradients> {
    let (q_dims, k_dims, v_dims) = (q.dims(), k.dims(), v.dims());
    let problem = Problem::new(q_dims, k_dims, v_dims)?;
    if output.dims() != problem.output_dims() {
        return None;
    }
    let data = [q, k, v, output].map(|tensor| tensor.clone().try_into_data().ok());
    let [q, k, v, output] = data;
    let (q, k, v, output) = (q?, k?, v?, output?);
    let inputs = host::Inputs {
        q: q.as_slice().ok()?,
        k: k.as_slice().ok()?,
        v: v.as_slice().ok()?,
    };
    let zeros = |dims: [usize; 4]| vec![0.0f32; dims.iter().product()];
    let (mut dq, mut dk, mut dv) = (zeros(q_dims), zeros(k_dims), zeros(v_dims));
    host::backward(&problem, &inputs, output.as_slice().ok()?, [&mut dq, &mut dk, &mut dv]);
    let tensor = |values, dims| Tensor::from_data(TensorData::new(values, dims), &Device::flex());
    Some(AttentionGradients {
        q: tensor(dq, q_dims),
        k: tensor(dk, k_dims),
        v: tensor(dv, v_dims),
    })
}
