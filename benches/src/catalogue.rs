//! What is measured: names and sizes, no data.

/// Something to compute, and the ways of computing it.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// The criterion benchmark that it belongs to.
    pub bench: Bench,
    /// Unique, `kind/size`.
    pub name: String,
    /// Kind and size.
    pub kind: Kind,
    /// The first is the reference that the others are compared with.
    pub strategies: Vec<Strategy>,
}

/// A way of solving a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Strategy {
    /// Unique within the problem.
    pub name: String,
    /// Floating-point operations, a multiplication and an addition being two; nothing where they depend on the data.
    pub flops: Option<u64>,
}

/// A criterion benchmark, `benches/benches/NAME.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bench {
    /// Plain products and second moments.
    Matrices,
    /// Attention of many tokens, and of one token and a cache.
    Attention,
    /// RoPE decoupling and joint PCA.
    Factorisation,
}

/// The kinds of problem with their sizes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A square product, whose rate the others are compared with.
    Matmul {
        /// Rows and columns.
        size: usize,
        /// Of burn in `f32` or of faer in `f64`.
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
        /// Tokens that a query sees, if they are not all of them; its scores are then bounded too, as in Gemma 2.
        window: Option<usize>,
    },
    /// One more token through a layer's attention, the others being in a cache.
    Decode {
        /// Of the model.
        heads: Heads,
        /// Tokens in the cache.
        context: usize,
        /// Rank r and rotary width d_r of the latent strategies, after the grouped one.
        latents: [(usize, usize); 2],
    },
    /// From a second moment of the keys to a decoupling.
    Rope {
        /// Of the model.
        heads: Heads,
        /// Adjacent frequencies that share a rotation.
        freqfold: usize,
        /// Width d_r of the shared rotary key.
        rope_dim: usize,
    },
    /// From weights and a second moment of the inputs to low-rank keys and values.
    LowRank {
        /// Of the model.
        heads: Heads,
        /// Width d_r of the shared rotary key, which is no part of the latent.
        rope_dim: usize,
        /// Width r of the latent.
        rank: usize,
    },
}

/// Attention heads of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    /// Width of the residual stream.
    pub hidden: usize,
    /// H.
    pub query: usize,
    /// G.
    pub key: usize,
    /// d.
    pub width: usize,
}

/// Number format and library of a product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// burn on the device.
    F32,
    /// faer on the host.
    F64,
}

const SMOLLM2: Heads = heads(576, 9, 3, 64);
const LLAMA2_7B: Heads = heads(4096, 32, 32, 128);
const LLAMA3_8B: Heads = heads(4096, 32, 8, 128);
const GEMMA2_9B: Heads = heads(3584, 16, 8, 256);
const HIDDEN_1024: Heads = heads(1024, 16, 8, 64);

const fn heads(hidden: usize, query: usize, key: usize, width: usize) -> Heads {
    Heads {
        hidden,
        query,
        key,
        width,
    }
}

/// All problems; with `long`, contexts of 8192 tokens too.
pub fn catalogue(long: bool) -> Vec<Problem> {
    let mut problems = vec![
        matmul(Precision::F32),
        matmul(Precision::F64),
        moment(2048, 576),
        moment(2048, 2048),
    ];
    problems.extend([
        prefill("smollm2", SMOLLM2, 256, None),
        prefill("smollm2", SMOLLM2, 512, None),
        prefill("llama3-8b", LLAMA3_8B, 512, None),
        // A window much shorter than the text, for what it leaves out; Gemma's own is 4096.
        prefill("gemma2-9b-window-128", GEMMA2_9B, 512, Some(128)),
    ]);
    for context in [512, 2048].into_iter().chain(long.then_some(8192)) {
        // SmolLM2 caches 384 numbers: a latent of 384 loses nothing, one of 128 is a third.
        problems.push(decode("smollm2", SMOLLM2, context, [(320, 64), (96, 32)]));
        problems.push(decode("llama2-7b", LLAMA2_7B, context, [(512, 64), (448, 128)]));
    }
    problems.extend([
        rope("smollm2", SMOLLM2, 1),
        rope("smollm2", SMOLLM2, 8),
        rope("llama3-8b", LLAMA3_8B, 8),
        lowrank("smollm2", SMOLLM2, 32, 96),
        lowrank("hidden1024", HIDDEN_1024, 64, 256),
    ]);
    problems
}

/// The product whose rate is the yardstick of a kind of problem: in its own number format.
pub fn yardstick(kind: &Kind) -> String {
    match kind {
        Kind::Rope { .. }
        | Kind::LowRank { .. }
        | Kind::Matmul {
            precision: Precision::F64,
            ..
        } => matmul(Precision::F64).name,
        _ => matmul(Precision::F32).name,
    }
}

fn matmul(precision: Precision) -> Problem {
    let size = 1024;
    let (name, library) = match precision {
        Precision::F32 => ("f32", "burn"),
        Precision::F64 => ("f64", "faer"),
    };
    Problem {
        bench: Bench::Matrices,
        name: format!("matmul/{name}-{size}"),
        kind: Kind::Matmul { size, precision },
        strategies: vec![strategy(library, Some(2 * size * size * size))],
    }
}

fn moment(rows: usize, width: usize) -> Problem {
    let flops = Some(2 * rows * width * width);
    Problem {
        bench: Bench::Matrices,
        name: format!("moment/{rows}x{width}"),
        kind: Kind::Moment { rows, width },
        strategies: vec![strategy("matmul", flops), strategy("second-moment", flops)],
    }
}

fn prefill(model: &str, shape: Heads, tokens: usize, window: Option<usize>) -> Problem {
    // Of whole score matrices: what a causal kernel leaves out counts for it.
    let flops = Some(4 * shape.query * tokens * tokens * shape.width);
    Problem {
        bench: Bench::Attention,
        name: format!("prefill/{model}-{tokens}"),
        kind: Kind::Prefill {
            heads: shape.query,
            width: shape.width,
            tokens,
            window,
        },
        strategies: vec![
            strategy("plain", flops),
            strategy("burn", flops),
            strategy("fused", flops),
        ],
    }
}

fn decode(model: &str, shape: Heads, context: usize, latents: [(usize, usize); 2]) -> Problem {
    let Heads {
        hidden,
        query,
        key,
        width,
    } = shape;
    // The cache holds one token more when the measured one comes, which sees itself too.
    let tokens = context + 2;
    let projections = 2 * hidden * (2 * query + 2 * key) * width;
    let mut strategies = vec![strategy("grouped", Some(projections + 4 * query * tokens * width))];
    for (rank, rope) in latents {
        let projections = 2 * hidden * (query * (width + rope) + rank + rope + query * width);
        let absorbed = 4 * query * width * rank;
        let attended = 2 * query * tokens * (2 * rank + rope);
        strategies.push(strategy(
            &format!("latent-{rank}+{rope}"),
            Some(projections + absorbed + attended),
        ));
    }
    Problem {
        bench: Bench::Attention,
        name: format!("decode/{model}-{context}"),
        kind: Kind::Decode {
            heads: shape,
            context,
            latents,
        },
        strategies,
    }
}

fn rope(model: &str, heads: Heads, freqfold: usize) -> Problem {
    Problem {
        bench: Bench::Factorisation,
        name: format!("rope/{model}-{}-fold{freqfold}", heads.key * heads.width),
        kind: Kind::Rope {
            heads,
            freqfold,
            rope_dim: heads.width,
        },
        strategies: vec![strategy("rororope", None)],
    }
}

fn lowrank(model: &str, heads: Heads, rope_dim: usize, rank: usize) -> Problem {
    Problem {
        bench: Bench::Factorisation,
        name: format!("lowrank/{model}-{rank}"),
        kind: Kind::LowRank { heads, rope_dim, rank },
        strategies: vec![strategy("joint-pca", None)],
    }
}

fn strategy(name: &str, flops: Option<usize>) -> Strategy {
    Strategy {
        name: name.to_owned(),
        flops: flops.map(|flops| flops as u64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_are_unique_and_every_problem_has_its_yardstick() {
        let problems = catalogue(true);
        let names: BTreeSet<&str> = problems.iter().map(|p| p.name.as_str()).collect();
        assert_eq!(names.len(), problems.len());
        for problem in &problems {
            assert!(names.contains(yardstick(&problem.kind).as_str()), "{}", problem.name);
            let strategies: BTreeSet<&str> = problem.strategies.iter().map(|s| s.name.as_str()).collect();
            assert_eq!(strategies.len(), problem.strategies.len());
        }
        assert!(catalogue(false).len() < problems.len());
    }
}
