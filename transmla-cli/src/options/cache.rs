//! The option that names the format of a KV cache.

use clap::Args;
use transmla_core::CacheFormat;

/// How a KV cache is kept.
#[derive(Debug, Args)]
pub struct CacheArguments {
    /// Number format of the KV cache: fp32, bf16 or fp16; for the latents of converted models also int8, fp8-e4m3 or int4
    #[arg(long = "cache-dtype", value_name = "DTYPE", default_value = "fp32")]
    pub format: CacheFormat,
}
