//! Attention of a few new tokens to a long cache as one kernel for GPUs, through burn's extension of its CubeCL backend.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `problem` | which calls the kernel takes, as numbers |
//! | `step` | what a launch says of its tensors and scores |
//! | `tile` | how the work is cut to fit a device |
//! | `attend` | the kernel: a part of the cache in one pass |
//! | `combine` | its weighted sums of values |
//! | `tensor` | the same kernel with matrix instructions, for 16-bit caches on devices that have them |
//! | `join` | the kernel that joins the parts |
//! | `launch` | all of them on tensors of the backend; picks the form |
//!
//! CUDA and wgpu share all of it: CubeCL compiles the kernels for the device that a tensor is on.

mod attend;
mod combine;
mod join;
mod launch;
mod problem;
mod step;
mod tensor;
mod tile;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, Dispatch, DispatchDevice, backend_extension};
use burn::tensor::Tensor;

use self::launch::Plan;
use self::problem::Problem;
use super::{AttentionParameters, CachedValues};

/// Backends that have the kernel.
#[backend_extension(Cube)]
pub(crate) trait FusedDecode: Backend {
    /// `[batch, H, new, d_v]` of queries, keys and values that the problem of a [`Plan`] describes. Values that are in the keys
    /// are not read; the keys stand for them.
    fn fused_decode(
        q: FloatTensor<Self>,
        keys: FloatTensor<Self>,
        values: FloatTensor<Self>,
        plan: Plan,
    ) -> FloatTensor<Self>;
}

/// The fused form of [`super::decode_tensors`]; nothing where it does not apply.
pub(super) fn decode(
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
pub(super) fn plan(
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
        CachedValues::InKeys(_) => None,
    }
}
