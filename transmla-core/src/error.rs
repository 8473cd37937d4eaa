//! The errors of this crate.

use std::path::Path;

use transmla_checkpoint::CheckpointError;

/// Errors of checkpoints, configurations, devices and models.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CoreError {
    /// An error of a checkpoint, a configuration, a token file or the hub.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A tensor of a computation has another shape than its place asks for.
    #[error("tensor {name}: expected shape {expected:?}, found {found:?}")]
    Shape {
        /// What the tensor is.
        name: String,
        /// The shape that was expected.
        expected: Vec<usize>,
        /// The shape that was given.
        found: Vec<usize>,
    },
    /// A model has no layer of this index.
    #[error("the model has {layers} layers, numbered from 0: there is no layer {index}")]
    NoSuchLayer {
        /// The index that was asked for.
        index: usize,
        /// The number of layers.
        layers: usize,
    },
    /// A sequence is longer than the context up to which dynamic RoPE scaling changes nothing.
    #[error(
        "unsupported model: dynamic RoPE scaling beyond its context ({tokens} tokens); supported: up to {limit} tokens \
         (max_position_embeddings), where it changes nothing"
    )]
    BeyondContext {
        /// Length of the sequence, in tokens.
        tokens: usize,
        /// The context, in tokens.
        limit: usize,
    },
    /// The requested device cannot be used.
    #[error("device {requested}: {problem}")]
    Device {
        /// What was asked for.
        requested: String,
        /// Why it cannot be had.
        problem: String,
    },
    /// A KV cache does not fit the model or batch that it is used with.
    #[error("KV cache: {problem}")]
    Cache {
        /// What does not fit.
        problem: String,
    },
    /// A cache format that there is for latents alone, and a model without latents.
    #[error(
        "{format} is a format for latents, which this model does not have: its attention caches keys and values of its heads, in \
         fp32, bf16 or fp16; a converted model has latents"
    )]
    CacheFormat {
        /// What was asked for.
        format: String,
    },
    /// A name that no cache format has.
    #[error("unknown format of a cache: {found}; there are fp32, bf16, fp16, and for latents int8, fp8-e4m3 and int4")]
    UnknownCacheFormat {
        /// The name.
        found: String,
    },
    /// Logits are not finite.
    #[error("the model's output is not finite: its weights are damaged or overflow")]
    NonFiniteLogits,
    /// Gradients that cannot be taken.
    #[error("{problem}")]
    NoGradients {
        /// Why.
        problem: String,
    },
    /// There is no token to continue.
    #[error("there is no token to start from: the prompt is empty")]
    EmptyPrompt,
    /// A model that makes its layers from others could not make one.
    #[error("{source}")]
    Made {
        /// What failed.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The accelerator failed to run a computation.
    #[error("the device failed: {0}")]
    Execution(String),
}

impl CoreError {
    /// An input/output error on a path.
    pub fn io(action: &'static str, path: &Path, source: std::io::Error) -> Self {
        CheckpointError::io(action, path, source).into()
    }
}
