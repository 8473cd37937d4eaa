//! The problems of the catalogue.

use super::problem::{Attend, Bench, Heads, Kind, Network, Precision, Problem, Questions, Strategy, Weights};

const SMOLLM2: Heads = heads(576, 9, 3, 64);
const LLAMA2_7B: Heads = heads(4096, 32, 32, 128);
const LLAMA3_8B: Heads = heads(4096, 32, 8, 128);
const GEMMA2_9B: Heads = heads(3584, 16, 8, 256);
const HIDDEN_1024: Heads = heads(1024, 16, 8, 64);

const STORIES260K: Network = Network {
    weights: Weights::Stories260k,
    heads: heads(64, 8, 4, 8),
    intermediate: 172,
    layers: 5,
    vocabulary: 512,
};

const fn smollm2_135m(layers: usize) -> Network {
    Network {
        weights: Weights::SmolLm2Shape,
        heads: SMOLLM2,
        intermediate: 1536,
        layers,
        vocabulary: 49152,
    }
}

/// Name, shapes, and the grouped problem for comparison.
const ATTENDS: [(&str, Attend, &str); 6] = [
    ("llama2_7b_decode", grouped(LLAMA2_7B), "llama2_7b_decode"),
    ("llama3_8b_decode", grouped(LLAMA3_8B), "llama3_8b_decode"),
    ("mla_absorbed_512_64", latent(32, 512, 64), "llama2_7b_decode"),
    ("mla_absorbed_448_128", latent(32, 448, 128), "llama2_7b_decode"),
    ("smollm2_decode", grouped(SMOLLM2), "smollm2_decode"),
    ("smollm2_absorbed_96_32", latent(9, 96, 32), "smollm2_decode"),
];

const fn grouped(heads: Heads) -> Attend {
    Attend {
        groups: heads.key,
        shared: heads.query / heads.key,
        width: heads.width,
        value_width: heads.width,
        latent: false,
    }
}

const fn latent(heads: usize, rank: usize, rope: usize) -> Attend {
    Attend {
        groups: 1,
        shared: heads,
        width: rank + rope,
        value_width: rank,
        latent: true,
    }
}

const fn heads(hidden: usize, query: usize, key: usize, width: usize) -> Heads {
    Heads {
        hidden,
        query,
        key,
        width,
    }
}

/// All problems; with `long`, contexts of 8192 tokens, an eigenproblem of 4096 and all layers of SmolLM2 too.
pub fn catalogue(long: bool) -> Vec<Problem> {
    let mut problems = vec![
        copy(),
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
        for (name, shape, grouped) in ATTENDS {
            problems.push(attend(name, shape, context, grouped));
        }
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
    // Hidden sizes of SmolLM2-135M, Llama 3.2 1B and Llama 3 8B.
    problems.extend([576, 2048].into_iter().chain(long.then_some(4096)).map(eigen));
    problems.push(evaluate("stories260k", STORIES260K, 4, 512));
    for layers in [6].into_iter().chain(long.then_some(30)) {
        let name = format!("smollm2-135m-{layers}-layers");
        problems.push(evaluate(&name, smollm2_135m(layers), 4, 256));
    }
    for (examples, common) in [("", 0), ("-examples", 192)] {
        problems.push(score(&format!("stories260k{examples}"), STORIES260K, common));
        problems.push(score(
            &format!("smollm2-135m-6-layers{examples}"),
            smollm2_135m(6),
            common,
        ));
    }
    problems
}

/// The matrix product whose rate is the yardstick of a kind of problem, in the number format of the problem.
pub fn yardstick(kind: &Kind) -> String {
    match kind {
        Kind::Rope { .. }
        | Kind::LowRank { .. }
        | Kind::Eigen { .. }
        | Kind::Matmul {
            precision: Precision::F64,
            ..
        } => matmul(Precision::F64).name,
        _ => matmul(Precision::F32).name,
    }
}

/// The copy whose rate is the yardstick of memory bandwidth.
pub fn copy() -> Problem {
    let numbers = 1 << 25;
    Problem {
        bench: Bench::Matrices,
        name: "copy/f32-128mib".to_owned(),
        kind: Kind::Copy { numbers },
        strategies: vec![moving(strategy("stream", None), 2 * 4 * numbers)],
        grouped: None,
    }
}

/// Formats of quantised latents, with the bytes of a row that has so many numbers `behind` the latent: those of
/// `transmla_core::kernels::QuantisedRow`, which is not here when the catalogue is built alone.
fn quantised_rows(latent: usize, behind: usize) -> [(&'static str, usize); 3] {
    let rest = 2 * behind + 2;
    [
        ("int8", latent + rest),
        ("fp8-e4m3", latent + rest),
        ("int4", latent.div_ceil(2) + latent.div_ceil(16) + rest),
    ]
}

fn attend(name: &str, shape: Attend, context: usize, grouped: &str) -> Problem {
    let heads = shape.groups * shape.shared;
    let flops = 2 * heads * context * (shape.width + shape.value_width);
    let ends = 4 * heads * (shape.width + shape.value_width);
    let kept = |name: &str, bytes: usize| moving(strategy(name, Some(flops)), context * bytes + ends);
    let way = |name: &str, bytes: usize| kept(name, bytes * shape.cached());
    let mut strategies = vec![
        way("plain", 4),
        way("burn", 4),
        way("fused", 4),
        way("fused-bf16", 2),
        way("fused-f16", 2),
    ];
    if shape.latent {
        let (latent, behind) = (shape.value_width, shape.width - shape.value_width);
        strategies.extend(quantised_rows(latent, behind).map(|(name, bytes)| kept(&format!("fused-{name}"), bytes)));
    }
    Problem {
        bench: Bench::Attention,
        name: format!("attend/{name}-{context}"),
        kind: Kind::Attend { shape, context },
        strategies,
        grouped: Some((format!("attend/{grouped}-{context}"), "fused".to_owned())),
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
        grouped: None,
    }
}

fn moment(rows: usize, width: usize) -> Problem {
    let flops = Some(2 * rows * width * width);
    Problem {
        bench: Bench::Matrices,
        name: format!("moment/{rows}x{width}"),
        kind: Kind::Moment { rows, width },
        strategies: vec![strategy("matmul", flops), strategy("second-moment", flops)],
        grouped: None,
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
        grouped: None,
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
    let grouped = strategy("grouped", Some(projections + 4 * query * tokens * width));
    // Each weight meets one token: two operations for every 4 bytes.
    let mut strategies = vec![moving(grouped, 2 * projections + 4 * 2 * key * width * tokens)];
    for (rank, rope) in latents {
        let projections = 2 * hidden * (query * (width + rope) + rank + rope + query * width);
        let absorbed = 4 * query * width * rank;
        let attended = 2 * query * tokens * (2 * rank + rope);
        let latent = strategy(
            &format!("latent-{rank}+{rope}"),
            Some(projections + absorbed + attended),
        );
        let bytes = 2 * (projections + absorbed) + 4 * (rank + rope) * tokens;
        strategies.push(moving(latent, bytes));
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
        grouped: Some((format!("decode/{model}-{context}"), "grouped".to_owned())),
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
        grouped: None,
    }
}

fn lowrank(model: &str, heads: Heads, rope_dim: usize, rank: usize) -> Problem {
    Problem {
        bench: Bench::Factorisation,
        name: format!("lowrank/{model}-{rank}"),
        kind: Kind::LowRank { heads, rope_dim, rank },
        strategies: vec![strategy("joint-pca", None)],
        grouped: None,
    }
}

/// Counted as the divide-and-conquer algorithm that is run: 4/3 n³ to make the matrix tridiagonal, 4/3 n³ for the products
/// that merge the parts if no eigenvalue deflates, 2 n³ to turn the eigenvectors back.
fn eigen(size: usize) -> Problem {
    Problem {
        bench: Bench::Factorisation,
        name: format!("eigen/{size}"),
        kind: Kind::Eigen { size },
        strategies: vec![strategy("principal-components", Some(14 * size * size * size / 3))],
        grouped: None,
    }
}

/// Sequences through a whole model, with so many predictions of each. Operations are those of matrix products with full score
/// matrices, as for [`prefill`].
fn whole_model(name: &str, network: Network, sequences: usize, length: usize, predictions: usize) -> Strategy {
    let Heads {
        hidden,
        query,
        key,
        width,
    } = network.heads;
    let weights = hidden * (2 * (query + key) * width + 3 * network.intermediate);
    let layer = 2 * weights + 4 * query * width * length;
    let head = 2 * hidden * network.vocabulary;
    let flops = sequences * (length * network.layers * layer + predictions * head);
    Strategy {
        tokens: Some((sequences * length) as u64),
        ..strategy(name, Some(flops))
    }
}

fn evaluate(name: &str, network: Network, windows: usize, sequence: usize) -> Problem {
    let way = |name: &str, predictions: usize| whole_model(name, network, windows, sequence, predictions);
    Problem {
        bench: Bench::Evaluation,
        name: format!("evaluate/{name}"),
        kind: Kind::Evaluate {
            network,
            windows,
            sequence,
        },
        strategies: vec![
            way("forward", sequence),
            way("perplexity", sequence - 1),
            way("forward-streamed", sequence),
            way("perplexity-streamed", sequence - 1),
        ],
        grouped: None,
    }
}

/// Eight questions of 48 tokens with four answers of 8 each, behind what all of them begin with.
///
/// Operations are those of a forward of every question with each answer, and of logits where an answer is predicted alone; what is
/// computed once for several answers counts for each. So do tokens.
fn score(name: &str, network: Network, common: usize) -> Problem {
    let questions = Questions {
        count: 8,
        common,
        own: 48,
        answers: 4,
        answer: 8,
    };
    let sequences = questions.count * questions.answers;
    let length = common + questions.own + questions.answer;
    let way = |name: &str, predictions: usize| whole_model(name, network, sequences, length, predictions);
    Problem {
        bench: Bench::Evaluation,
        name: format!("score/{name}"),
        kind: Kind::Score { network, questions },
        strategies: vec![
            way("forward", length),
            way("apart", questions.answer),
            way("shared", questions.answer),
            way("shared-streamed", questions.answer),
        ],
        grouped: None,
    }
}

fn strategy(name: &str, flops: Option<usize>) -> Strategy {
    Strategy {
        name: name.to_owned(),
        flops: flops.map(|flops| flops as u64),
        bytes: None,
        tokens: None,
    }
}

fn moving(strategy: Strategy, bytes: usize) -> Strategy {
    Strategy {
        bytes: Some(bytes as u64),
        ..strategy
    }
}

#[cfg(all(test, feature = "run"))]
mod tests {
    use transmla_core::Quantisation;
    use transmla_core::kernels::QuantisedRow;

    use super::quantised_rows;

    #[test]
    fn rows_have_the_bytes_that_caches_keep() {
        for (latent, behind) in [(512, 64), (128, 32), (64, 32), (28, 8), (12, 4)] {
            let kept = Quantisation::ALL.map(|quantisation| {
                let row = QuantisedRow::new(quantisation, latent, behind);
                (quantisation.to_string(), row.bytes())
            });
            let found = quantised_rows(latent, behind).map(|(name, bytes)| (name.to_owned(), bytes));
            assert_eq!(found, kept);
        }
    }
}
