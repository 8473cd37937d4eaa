//! Which tensors go to the kernel.

use burn::backend::{Dispatch, DispatchDevice};
use burn::tensor::Tensor;
use transmla_checkpoint::config::AttentionParameters;

use super::fused::FusedDecode;
use super::plan::Plan;
use super::problem::Problem;
use crate::kernels::cached_values::CachedValues;

/// The fused form of [`decode_tensors`](crate::kernels::decode_tensors); nothing where it does not apply.
pub(crate) fn decode(
    q: &Tensor<4>,
    keys: &Tensor<4>,
    values: &CachedValues,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> Option<Tensor<4>> {
    let plan = plan(q, keys, values, lengths, parameters)?;
    let attended = <Dispatch as FusedDecode>::fused_decode(
        q.clone().into_dispatch(),
        keys.clone().into_dispatch(),
        apart(values).unwrap_or(keys).clone().into_dispatch(),
        plan,
    );
    Some(Tensor::from_dispatch(attended))
}

/// How the kernel goes about these; nothing where it does not apply.
pub(crate) fn plan(
    q: &Tensor<4>,
    keys: &Tensor<4>,
    values: &CachedValues,
    lengths: &[usize],
    parameters: &AttentionParameters,
) -> Option<Plan> {
    let device = keys.device();
    let on_cube = matches!(device.as_dispatch(), DispatchDevice::Cube(_));
    let here = |tensor: &Tensor<4>| !tensor.is_autodiff() && tensor.device() == device;
    let all_here = here(q) && here(keys) && apart(values).is_none_or(here);
    if !(on_cube && all_here) {
        return None;
    }
    Plan::new(&device, Problem::new(q, keys, values, lengths, parameters)?)
}

fn apart(values: &CachedValues) -> Option<&Tensor<4>> {
    match values {
        CachedValues::Apart(values) => Some(values),
        CachedValues::InKeys(_) | CachedValues::InScaledKeys { .. } => None,
    }
}
