//! The kernel that attends to a part of the cache with the matrix instructions of a GPU: products of 16-bit numbers, sums in
//! `f32`.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `tile` | how the work is cut |
//! | `blocks` | tokens from memory, by way of registers, into shared memory |
//! | `scores` | products of queries and keys, and the running softmax |
//! | `values` | weighted sums of values, and how they leave |
//! | `attend` | the kernel |
//!
//! It needs `mma` with 16 x 8 x 16 numbers and `ldmatrix`, which are NVIDIA's (Ampere and later). Queries and weights are
//! rounded to the format of the cache.

mod attend;
mod blocks;
mod scores;
mod tile;
mod values;

pub(super) use attend::attend_part_tensor;
pub(super) use tile::{TensorTile, VECTOR};
