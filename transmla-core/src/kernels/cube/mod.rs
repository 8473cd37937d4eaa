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
//! | `plan` | a problem and how a device goes about it; picks the form |
//! | `fused` | the extension of burn's backends |
//! | `launch` | its implementation: all kernels on tensors of the CubeCL backend |
//! | `dispatch` | which tensors go to it |
//!
//! CUDA and wgpu share all of it: CubeCL compiles the kernels for the device that a tensor is on.

mod attend;
mod combine;
pub(super) mod dispatch;
mod fused;
mod join;
mod launch;
mod plan;
mod problem;
mod step;
mod tensor;
mod tile;
