//! Decoding from caches: fused kernels against plain ones, cached against whole, sequences together against each alone.

mod attention;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
mod gpu;
mod kernels;
mod models;
mod windows;
