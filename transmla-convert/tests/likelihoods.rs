//! Answers are scored through latent caches, where up-projections are absorbed: the same as through expanded keys and values.

use burn::tensor::Device;
use transmla_convert::{FreqFold, MethodName, Recipe};
use transmla_core::{Decoder, LayeredModel, Residency, StorageDtype, TokenBatch, host_values};
use transmla_eval::{Request, ScoringOptions, Silent, log_likelihoods};

mod stories;

/// Four answers to each of some contexts, of many lengths, of which pairs begin alike.
fn requests(text: &TokenBatch) -> Vec<Request> {
    let ids = |row: usize, from: usize, count: usize| -> Vec<u32> {
        let row = &text.row(row)[from..from + count];
        row.iter().map(|id| *id as u32).collect()
    };
    let mut requests = Vec::new();
    for row in 0..text.batch() {
        for length in [1, 17, 64 + 13 * row, 200 + 29 * row] {
            for answer in 0..4 {
                requests.push(Request {
                    context: ids(row, 0, length),
                    continuation: ids((row + answer) % text.batch(), length + answer, 1 + answer),
                });
            }
        }
    }
    requests
}

/// Of a request, from the logits of the whole sequence: no cache, keys and values of every head.
fn expanded(model: &Decoder, request: &Request) -> f64 {
    let ids = request.context.iter().chain(&request.continuation);
    let ids: Vec<i64> = ids.map(|id| i64::from(*id)).collect();
    let (length, vocabulary) = (ids.len(), model.config().vocab_size);
    let tokens = TokenBatch::from_ids(ids, 1, length).unwrap();
    let logits = host_values(model.logits(&tokens, None).unwrap()).unwrap();
    let first = request.context.len() - 1;
    let rows = logits[first * vocabulary..].chunks(vocabulary);
    let of = |(target, row): (&u32, &[f32])| {
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        f64::from(row[*target as usize] - largest) - sum.ln()
    };
    request.continuation.iter().zip(rows).map(of).sum()
}

#[test]
fn a_latent_model_answers_as_its_expanded_form() {
    let text = stories::test_windows(6);
    let requests = requests(&text);
    for (method, q_lora_rank) in [
        (MethodName::Transmla, None),
        (MethodName::Coherent, None),
        (MethodName::Coherent, Some(40)),
    ] {
        let recipe = Recipe {
            method,
            refine: Some(0),
            qk_mqa_dim: Some(8),
            kv_lora_rank: Some(28),
            q_lora_rank,
            freqfold: FreqFold::Fixed(1),
            dtype: StorageDtype::F32,
            ..Recipe::default()
        };
        let (_, folder) = stories::convert_stories(&recipe, 8, 1);
        let model = Decoder::open(&folder.path().join("mla"), &Device::flex(), Residency::Loaded).unwrap();
        let expected: Vec<f64> = requests.iter().map(|request| expanded(&model, request)).collect();
        for share in [true, false] {
            let options = ScoringOptions {
                share,
                ..ScoringOptions::default()
            };
            let found = log_likelihoods(&model, &requests, &options, &mut Silent).unwrap();
            let apart = found.iter().zip(&expected).map(|(a, b)| (a.log_likelihood - b).abs());
            let worst = apart.fold(0.0, f64::max);
            assert!(
                worst < 1e-4,
                "{method:?}, queries {q_lora_rank:?}, shared {share}: {worst:e}"
            );
        }
    }
}
