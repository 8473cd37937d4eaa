//! Decoding from caches: fused kernels against plain ones, cached against whole, sequences together against each alone.

mod attention;
mod kernels;
mod models;
