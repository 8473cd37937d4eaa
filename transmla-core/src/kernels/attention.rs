//! Causal attention with grouped keys, and its gradient.

use burn::tensor::activation::softmax;
use burn::tensor::module::attention as burn_attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{DType, Device, Tensor, TensorData};
use transmla_checkpoint::config::AttentionParameters;

use super::host::{self, Problem};
use super::scores::{attention_mask, capped_scores, masked_scores};

/// Causal softmax attention; query row i sees keys up to `past + i`, in a window if there is one.
///
/// On the CPU this is one fused pass; elsewhere, and where gradients are recorded, burn's own operation, or plain tensor
/// operations where scores are bounded.
///
/// # Shapes
/// q `[batch, H, new, width]`, k `[batch, G, past + new, width]`, v `[batch, G, past + new, d_v]` with H a multiple of G;
/// result `[batch, H, new, d_v]`.
pub fn attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, parameters: &AttentionParameters) -> Tensor<4> {
    if on_host(&q)
        && let Some(result) = fused(&q, &k, &v, parameters)
    {
        return result;
    }
    if parameters.softcap.is_some() {
        return plain_attend(q, k, v, parameters);
    }
    let [_, heads, new, width] = q.dims();
    let tokens = k.dims()[2];
    let is_causal = tokens == new && parameters.window.is_none_or(|window| window >= tokens);
    let mask = match is_causal {
        true => None,
        false => attention_mask(parameters, new, tokens, &q.device()).map(Tensor::unsqueeze),
    };
    let options = AttentionModuleOptions {
        is_causal,
        ..Default::default()
    };
    // The operation divides by the square root of the width.
    let ratio = parameters.scale * (width as f64).sqrt();
    let q = if (ratio - 1.0).abs() < 1e-12 {
        q
    } else {
        q.mul_scalar(ratio)
    };
    burn_attention(q, repeat_heads(k, heads), repeat_heads(v, heads), mask, None, options)
}

/// [`attend`] from plain tensor operations: what every other form is tested against.
pub fn plain_attend(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>, parameters: &AttentionParameters) -> Tensor<4> {
    let v = repeat_heads(v, q.dims()[1]);
    probabilities(&q, &k, parameters).matmul(v)
}

/// Gradients with respect to the inputs of [`attend`], each of its input's shape.
#[derive(Debug, Clone)]
pub struct AttentionGradients {
    /// Of the queries.
    pub q: Tensor<4>,
    /// Of the keys.
    pub k: Tensor<4>,
    /// Of the values.
    pub v: Tensor<4>,
}

/// The gradient of [`attend`], given that at its result.
///
/// Nothing has to be kept from the forward pass: probabilities are computed again, block by block.
pub fn attention_gradients(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    output: Tensor<4>,
    parameters: &AttentionParameters,
) -> AttentionGradients {
    if on_host(&q)
        && let Some(result) = fused_gradients(&q, &k, &v, &output, parameters)
    {
        return result;
    }
    plain_attention_gradients(q, k, v, output, parameters)
}

/// The same from plain tensor operations.
pub fn plain_attention_gradients(
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
    output: Tensor<4>,
    parameters: &AttentionParameters,
) -> AttentionGradients {
    let heads = q.dims()[1];
    let groups = k.dims()[1];
    let p = probabilities(&q, &k, parameters); // [batch, H, new, tokens]
    let dp = output.clone().matmul(repeat_heads(v, heads).swap_dims(2, 3));
    let mean = (dp.clone() * p.clone()).sum_dim(3);
    let mut ds = (p.clone() * (dp - mean)).mul_scalar(parameters.scale);
    if let Some(cap) = parameters.softcap {
        let capped = capped_scores(parameters, products(&q, &k));
        ds = ds * (capped.div_scalar(cap).square().neg().add_scalar(1.0));
    }
    AttentionGradients {
        q: ds.clone().matmul(repeat_heads(k, heads)),
        k: sum_heads(ds.swap_dims(2, 3).matmul(q), groups),
        v: sum_heads(p.swap_dims(2, 3).matmul(output), groups),
    }
}

fn products(q: &Tensor<4>, k: &Tensor<4>) -> Tensor<4> {
    let heads = q.dims()[1];
    q.clone().matmul(repeat_heads(k.clone(), heads).swap_dims(2, 3))
}

fn probabilities(q: &Tensor<4>, k: &Tensor<4>, parameters: &AttentionParameters) -> Tensor<4> {
    softmax(masked_scores(parameters, products(q, k)), 3)
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

/// Whether the fused kernels of the CPU can take a tensor.
pub(crate) fn on_host<const D: usize>(tensor: &Tensor<D>) -> bool {
    !tensor.is_autodiff() && tensor.dtype() == DType::F32 && tensor.device() == Device::flex()
}

/// `None` if the shapes are not those of attention: the caller's ordinary path then says what is wrong.
fn fused(q: &Tensor<4>, k: &Tensor<4>, v: &Tensor<4>, parameters: &AttentionParameters) -> Option<Tensor<4>> {
    let problem = Problem::new(q.dims(), k.dims(), v.dims(), parameters)?;
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

fn fused_gradients(
    q: &Tensor<4>,
    k: &Tensor<4>,
    v: &Tensor<4>,
    output: &Tensor<4>,
    parameters: &AttentionParameters,
) -> Option<AttentionGradients> {
    let (q_dims, k_dims, v_dims) = (q.dims(), k.dims(), v.dims());
    let problem = Problem::new(q_dims, k_dims, v_dims, parameters)?;
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
