//! Problems: kind and sizes, and the strategies that solve them.

/// A computation, and the strategies that perform it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The criterion benchmark to which it belongs.
    pub bench: Bench,
    /// Unique, `kind/size`.
    pub name: String,
    /// Kind and size.
    pub kind: Kind,
    /// The first is the reference with which the others are compared.
    pub strategies: Vec<Strategy>,
    /// For decoding: problem and strategy with grouped queries at equal context.
    pub grouped: Option<(String, String)>,
}

/// A solution of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Unique within the problem.
    pub name: String,
    /// Floating-point operations, where a multiply-add counts as two; `None` if their number depends on the data.
    pub flops: Option<u64>,
    /// Bytes of weights and caches that must be read or written; `None` if they do not matter.
    pub bytes: Option<u64>,
    /// Tokens of text that pass through a whole model, for evaluations.
    pub tokens: Option<u64>,
}

/// A criterion benchmark, `benches/benches/NAME.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// Copies, plain products and second moments.
    Matrices,
    /// Attention of many tokens, and of one token and a cache.
    Attention,
    /// RoPE decoupling, joint PCA and eigenvectors.
    Factorisation,
    /// Perplexity, and log-likelihoods of answers.
    Evaluation,
}

/// The kinds of problem with their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A copy from one array to another, the yardstick of memory bandwidth.
    Copy {
        /// Numbers of 4 bytes.
        numbers: usize,
    },
    /// A square matrix product, the yardstick of arithmetic.
    Matmul {
        /// Rows and columns.
        size: usize,
        /// burn in `f32` or faer in `f64`.
        precision: Precision,
    },
    /// Σ x xᵀ of a batch of inputs.
    Moment {
        /// Inputs.
        rows: usize,
        /// Width of an input.
        width: usize,
    },
    /// Causal attention of many tokens to themselves.
    Prefill {
        /// Heads.
        heads: usize,
        /// Width of a head.
        width: usize,
        /// Tokens.
        tokens: usize,
        /// Sliding window, if any; scores are then bounded (soft-capped) too, as in Gemma 2.
        window: Option<usize>,
    },
    /// Attention of one token to cached keys and values, or to latents that serve as both: the kernel alone.
    Attend {
        /// Shapes.
        shape: Attend,
        /// Tokens in the cache.
        context: usize,
    },
    /// One token through a layer's attention, with the others in a cache.
    Decode {
        /// Of the model.
        heads: Heads,
        /// Tokens in the cache.
        context: usize,
        /// Rank `r` and rotary width `d_r` of the latent strategies, which follow the grouped one.
        latents: [(usize, usize); 2],
    },
    /// From a second moment of the keys to a decoupling.
    Rope {
        /// Of the model.
        heads: Heads,
        /// Adjacent frequencies that share a rotation.
        freqfold: usize,
        /// Width `d_r` of the shared rotary key.
        rope_dim: usize,
    },
    /// From weights and a second moment of the inputs to low-rank keys and values.
    LowRank {
        /// Of the model.
        heads: Heads,
        /// Width `d_r` of the shared rotary key, which is not part of the latent.
        rope_dim: usize,
        /// Width `r` of the latent.
        rank: usize,
    },
    /// From a second moment to all its eigenvalues and eigenvectors.
    Eigen {
        /// Rows and columns.
        size: usize,
    },
    /// From a text to its perplexity under a whole model.
    Evaluate {
        /// The model.
        network: Network,
        /// Windows of text.
        windows: usize,
        /// Tokens of a window.
        sequence: usize,
    },
    /// From questions with several answers each to the log-likelihood of every answer under a whole model.
    Score {
        /// The model.
        network: Network,
        /// What is asked.
        questions: Questions,
    },
}

/// Sizes of questions, as tasks have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Questions {
    /// Number of questions.
    pub count: usize,
    /// Tokens that all questions begin with, such as examples.
    pub common: usize,
    /// Tokens of its own that a question goes on with.
    pub own: usize,
    /// Answers to each.
    pub answers: usize,
    /// Tokens of an answer.
    pub answer: usize,
}

/// Sizes of a model with grouped queries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// Where its weights come from.
    pub weights: Weights,
    /// Of every layer.
    pub heads: Heads,
    /// Width of the MLP, which consists of three matrices.
    pub intermediate: usize,
    /// Number of layers.
    pub layers: usize,
    /// Number of token ids.
    pub vocabulary: usize,
}

/// Where a model's weights come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weights {
    /// The trained model in `transmla-cli/models/`.
    Stories260k,
    /// Random weights in the shape of SmolLM2-135M, which has 30 layers.
    SmolLm2Shape,
}

impl Kind {
    /// Whether it can be measured on a GPU: decoding, and the two yardsticks.
    pub fn on_gpu(&self) -> bool {
        matches!(
            self,
            Self::Copy { .. }
                | Self::Matmul {
                    precision: Precision::F32,
                    ..
                }
                | Self::Attend { .. }
                | Self::Decode { .. }
        )
    }
}

/// Attention heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of query heads, H.
    pub query: usize,
    /// Number of key heads, G.
    pub key: usize,
    /// Width of a head, d.
    pub width: usize,
}

/// Shapes of decoding attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attend {
    /// Key heads, 1 for a latent.
    pub groups: usize,
    /// Query heads that share one.
    pub shared: usize,
    /// Width of a query and of a key.
    pub width: usize,
    /// Width of a value.
    pub value_width: usize,
    /// Whether a value is the first part of its key.
    pub latent: bool,
}

impl Attend {
    /// Numbers per token in the cache.
    pub fn cached(&self) -> usize {
        let values = if self.latent { 0 } else { self.value_width };
        self.groups * (self.width + values)
    }
}

/// Number format and library of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// burn on the device.
    F32,
    /// faer on the host.
    F64,
}
