//! Log-likelihoods against a plain forward of every whole sequence.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use transmla_core::burn::tensor::Device;
use transmla_core::{Decoder, LayeredModel, Residency, TokenBatch, host_values};
use transmla_eval::{EvalError, Likelihood, Request, ScoringOptions, Silent, log_likelihoods};

/// Grouped, latent with and without low-rank queries, windows, soft-caps and four norms, two RoPEs, experts, normalised heads.
const MODELS: [&str; 15] = [
    "llama3.2",
    "deepseek-v3",
    "deepseek-v3-qlora",
    "mistral-window",
    "gemma2",
    "gemma3",
    "mixtral",
    "qwen3",
    "qwen2.5",
    "smollm3",
    "granite",
    "olmo2",
    "phi3",
    "qwen3-moe",
    "qwen2-moe",
];

fn open(name: &str, residency: Residency) -> Decoder {
    let folder: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../transmla-core/tests/families")
        .join(name);
    Decoder::open(&folder, &Device::flex(), residency).unwrap()
}

/// Each sequence by itself, whole.
fn one_by_one(model: &Decoder, requests: &[Request]) -> Vec<Likelihood> {
    let vocabulary = model.config().vocab_size;
    let one = |request: &Request| {
        let ids: Vec<i64> = [request.context.as_slice(), &request.continuation]
            .concat()
            .into_iter()
            .map(i64::from)
            .collect();
        let length = ids.len();
        let tokens = TokenBatch::from_ids(ids, 1, length).unwrap();
        let logits = host_values(model.logits(&tokens, None).unwrap()).unwrap();
        let mut found = Likelihood {
            log_likelihood: 0.0,
            is_greedy: true,
        };
        for (index, target) in request.continuation.iter().enumerate() {
            let row = request.context.len() - 1 + index;
            let row: Vec<f64> = logits[row * vocabulary..][..vocabulary]
                .iter()
                .map(|value| f64::from(*value))
                .collect();
            let largest = row.iter().copied().fold(f64::MIN, f64::max);
            let normaliser = row.iter().map(|value| (value - largest).exp()).sum::<f64>().ln() + largest;
            found.log_likelihood += row[*target as usize] - normaliser;
            found.is_greedy &= row[*target as usize] == largest;
        }
        found
    };
    requests.iter().map(one).collect()
}

fn check(found: &[Likelihood], expected: &[Likelihood], what: &str) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (found.log_likelihood - expected.log_likelihood).abs();
        assert!(difference < 2e-4, "{what}, {index}: {found:?} instead of {expected:?}");
        assert_eq!(found.is_greedy, expected.is_greedy, "{what}, {index}");
    }
}

/// Questions behind common examples, with continuations of one and several tokens, and some that have nothing in common.
fn requests(vocabulary: u32) -> Vec<Request> {
    let token = |seed: u32| (seed * seed * 7 + seed * 13 + 5) % vocabulary;
    let tokens = |from: u32, count: u32| (from..from + count).map(token).collect::<Vec<_>>();
    let mut asked = Vec::new();
    let examples = tokens(0, 40);
    for question in 1..4 {
        let context = [examples.as_slice(), &tokens(100 * question, 3 + 4 * question)].concat();
        for answer in 0..3 {
            asked.push(Request {
                context: context.clone(),
                continuation: tokens(1000 + 10 * answer, 1 + 2 * answer),
            });
        }
    }
    for alone in 0..3 {
        asked.push(Request {
            context: tokens(2000 + 50 * alone, 1 + 9 * alone),
            continuation: tokens(3000 + alone, 1 + alone),
        });
    }
    // Once more, and the same context with another end.
    asked.push(asked[2].clone());
    asked.push(Request {
        continuation: tokens(4000, 6),
        ..asked[10].clone()
    });
    asked
}

#[test]
fn sharing_and_batches_change_nothing() {
    for name in MODELS {
        let model = open(name, Residency::Loaded);
        let asked = requests(model.config().vocab_size as u32);
        let expected = one_by_one(&model, &asked);
        let streamed = open(name, Residency::Streamed);
        for (share, batch_tokens, state_bytes) in [
            (true, 512, 1 << 20),
            (false, 512, 1 << 20),
            (true, 16, 1 << 20),
            (true, 64, 20_000),
            (false, 1, 1),
        ] {
            let options = ScoringOptions {
                share,
                batch_tokens,
                state_bytes,
                ..ScoringOptions::default()
            };
            let what = format!("{name}, {options:?}");
            let found = log_likelihoods(&model, &asked, &options, &mut Silent).unwrap();
            check(&found, &expected, &what);
            assert_eq!(
                found,
                log_likelihoods(&streamed, &asked, &options, &mut Silent).unwrap(),
                "{what}"
            );
            assert_eq!(found[2], found[12]);
        }
    }
}

#[test]
fn the_most_likely_continuation_is_greedy() {
    let model = open("llama3.2", Residency::Loaded);
    let mut ids: Vec<i64> = vec![3, 5, 8];
    for _ in 0..5 {
        let tokens = TokenBatch::from_ids(ids.clone(), 1, ids.len()).unwrap();
        let logits = host_values(model.next_logits(&tokens, None).unwrap()).unwrap();
        let best = (0..logits.len())
            .max_by(|a, b| logits[*a].total_cmp(&logits[*b]))
            .unwrap();
        ids.push(best as i64);
    }
    let ids: Vec<u32> = ids.into_iter().map(|id| id as u32).collect();
    let request = |change: u32| Request {
        context: ids[..3].to_vec(),
        continuation: [&ids[3..7], &[(ids[7] + change) % 512]].concat(),
    };
    let found = log_likelihoods(
        &model,
        &[request(0), request(1)],
        &ScoringOptions::default(),
        &mut Silent,
    )
    .unwrap();
    assert_eq!((found[0].is_greedy, found[1].is_greedy), (true, false));
    assert!(found[0].log_likelihood > found[1].log_likelihood);
}

#[test]
fn long_contexts_are_cut_as_said() {
    let model = open("deepseek-v3", Residency::Loaded);
    let asked = Request {
        context: (1..30).collect(),
        continuation: vec![4, 9, 2],
    };
    let options = ScoringOptions {
        max_length: Some(12),
        ..ScoringOptions::default()
    };
    let found = log_likelihoods(&model, std::slice::from_ref(&asked), &options, &mut Silent).unwrap();
    // 12 tokens are read, the last of the continuation is not.
    let cut = Request {
        context: asked.context[asked.context.len() - 10..].to_vec(),
        ..asked.clone()
    };
    check(&found, &one_by_one(&model, &[cut]), "cut");
    let longer = Request {
        continuation: (1..15).collect(),
        ..asked
    };
    let error = log_likelihoods(&model, &[longer], &options, &mut Silent).unwrap_err();
    assert!(matches!(error, EvalError::Request { index: 0, .. }), "{error}");
}

#[test]
fn ids_of_another_vocabulary_are_refused() {
    let model = open("llama3.2", Residency::Loaded);
    let asked = Request {
        context: vec![1],
        continuation: vec![1_000_000, 1],
    };
    assert!(log_likelihoods(&model, &[asked], &ScoringOptions::default(), &mut Silent).is_err());
    let asked = Request {
        context: vec![1],
        continuation: vec![1_000_000],
    };
    assert!(log_likelihoods(&model, &[asked], &ScoringOptions::default(), &mut Silent).is_err());
    assert_eq!(
        log_likelihoods(&model, &[], &ScoringOptions::default(), &mut Silent).unwrap(),
        []
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_requests(
        contexts in prop::collection::vec((0_u32..3, prop::collection::vec(0_u32..50, 1..20)), 1..6),
        continuations in prop::collection::vec(prop::collection::vec(0_u32..50, 1..6), 1..5),
        batch_tokens in 1_usize..200,
    ) {
        let model = open("deepseek-v3", Residency::Loaded);
        let mut asked = Vec::new();
        for (beginning, context) in &contexts {
            let beginning: Vec<u32> = (0..40 * beginning).map(|index| index % 50).collect();
            for continuation in &continuations {
                asked.push(Request {
                    context: [beginning.as_slice(), context].concat(),
                    continuation: continuation.clone(),
                });
            }
        }
        let options = ScoringOptions { batch_tokens, max_length: Some(200), ..ScoringOptions::default() };
        let found = log_likelihoods(&model, &asked, &options, &mut Silent).unwrap();
        check(&found, &one_by_one(&model, &asked), "random");
    }
}
