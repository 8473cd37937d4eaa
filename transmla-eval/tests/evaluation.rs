//! Perplexity and divergence against their definitions, computed from whole logits.

use std::path::Path;

use transmla_core::burn::tensor::Device;
use transmla_core::{CacheFormat, Decoder, KvCache, LayeredModel, Residency, TokenBatch, host_values};
use transmla_eval::{
    EvalError, EvalOptions, Observer, Silent, divergence, divergence_by_position, perplexity, perplexity_by_position,
    position_ranges,
};

fn model() -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models/stories260k");
    Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap()
}

fn windows(batch: usize, sequence: usize) -> TokenBatch {
    let ids = (0..batch * sequence).map(|i| ((i * i * 7 + i * 13 + 3) % 500) as i64);
    TokenBatch::from_ids(ids.collect(), batch, sequence).unwrap()
}

/// Log-probabilities of every token by the definition, in f64.
fn log_probabilities(model: &Decoder, window: &TokenBatch) -> Vec<Vec<f64>> {
    let logits = model.logits(window, None).unwrap();
    let vocabulary = logits.dims()[2];
    let values: Vec<f64> = logits.into_data().iter::<f32>().map(f64::from).collect();
    let rows = values.chunks_exact(vocabulary);
    rows.map(|row| {
        let normaliser = row.iter().map(|v| v.exp()).sum::<f64>().ln();
        row.iter().map(|v| v - normaliser).collect()
    })
    .collect()
}

#[test]
fn perplexity_is_its_definition() {
    let (model, windows) = (model(), windows(3, 40));
    let mut means = Vec::new();
    for index in 0..3 {
        let window = windows.rows(index..index + 1).unwrap();
        let log_p = log_probabilities(&model, &window);
        let nll: f64 = (0..39).map(|t| -log_p[t][window.ids()[t + 1] as usize]).sum();
        means.push(nll / 39.0);
    }
    let expected = means.iter().sum::<f64>() / 3.0;
    let found = perplexity(&model, &windows, &EvalOptions::default(), &mut Silent).unwrap();
    assert!(
        (found.mean_nll - expected).abs() < 1e-5,
        "{} {expected}",
        found.mean_nll
    );
    assert!((found.perplexity - expected.exp()).abs() < 1e-4 * expected.exp());
    assert_eq!((found.windows, found.predictions), (3, 3 * 39));
}

/// Every step that an evaluation reports, as done and total.
struct Steps(Vec<(u64, u64)>);

impl Observer for Steps {
    fn advance(&mut self, done: u64, total: u64) {
        self.0.push((done, total));
    }
}

impl Steps {
    /// One by one up to the total, which never changes.
    fn check(&self) {
        let total = self.0.len() as u64;
        let expected: Vec<_> = (1..=total).map(|done| (done, total)).collect();
        assert!(total > 0 && self.0 == expected, "{:?}", self.0);
    }
}

#[test]
fn neither_batches_nor_groups_matter_and_progress_ends_at_the_whole() {
    let (model, windows) = (model(), windows(5, 16));
    let first = perplexity(&model, &windows, &EvalOptions::default(), &mut Silent).unwrap();
    for (batch_size, state_bytes) in [(1, 1), (3, 1), (5, 1 << 30), (0, 0)] {
        let options = EvalOptions {
            batch_size,
            state_bytes,
            ..EvalOptions::default()
        };
        let mut seen = Steps(Vec::new());
        let other = perplexity(&model, &windows, &options, &mut seen).unwrap();
        assert!((other.mean_nll - first.mean_nll).abs() < 1e-5);
        seen.check();
    }
}

/// Through a cache as the next token after token would: whole windows against tokens that are decoded one by one.
#[test]
fn perplexity_through_a_cache_is_that_of_decoding() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-core/tests/families/deepseek-v3");
    let model = Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap();
    let windows = windows(2, 12);
    for format in CacheFormat::ALL {
        let model = model.for_cache(format).unwrap();
        let options = EvalOptions {
            cache: Some(format),
            ..EvalOptions::default()
        };
        let found = perplexity(&model, &windows, &options, &mut Silent).unwrap();
        let mut nll = 0.0;
        for index in 0..2 {
            let mut cache = KvCache::in_format(model.config(), 12, format).unwrap();
            let ids = windows.row(index);
            for (id, next) in ids.iter().zip(&ids[1..]) {
                let token = TokenBatch::from_ids(vec![*id], 1, 1).unwrap();
                let logits = host_values(model.next_logits(&token, Some(&mut cache)).unwrap()).unwrap();
                let normaliser = logits.iter().map(|logit| f64::from(*logit).exp()).sum::<f64>().ln();
                nll += (normaliser - f64::from(logits[*next as usize])) / 22.0;
            }
        }
        // Rounded again, a number may get the other of two codes.
        let tolerance = if format == CacheFormat::default() { 1e-5 } else { 1e-2 };
        assert!(
            (found.mean_nll - nll).abs() < tolerance,
            "{format}: {} {nll}",
            found.mean_nll
        );
    }
}

#[test]
fn divergence_is_its_definition() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-core/tests/families/deepseek-v3");
    let (first, windows) = (model(), windows(2, 12));
    let second = Decoder::open(&folder, &Device::flex(), Residency::Streamed).unwrap();
    let (mut kl, mut agreed) = (0.0, 0);
    for index in 0..2 {
        let window = windows.rows(index..index + 1).unwrap();
        let (p, q) = (log_probabilities(&first, &window), log_probabilities(&second, &window));
        for (p, q) in p.iter().zip(&q) {
            kl += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>() / 24.0;
            let best = |row: &Vec<f64>| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
            agreed += usize::from(best(p) == best(q));
        }
    }
    let mut steps = Steps(Vec::new());
    let found = divergence(&first, &second, &windows, &EvalOptions::default(), &mut steps).unwrap();
    steps.check();
    assert!(kl > 0.1 && (found.kl - kl).abs() < 1e-4, "{} {kl}", found.kl);
    assert!((found.top1_agreement - agreed as f64 / 24.0).abs() < 1e-9);
    assert!(found.max_logit_difference > 0.1);
}

/// Windows of 300 tokens end within the third range; batches and blocks of logits end within ranges.
#[test]
fn ranges_of_positions_are_means_over_their_own_tokens() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-core/tests/families/deepseek-v3");
    let other = Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap();
    let (model, windows) = (model(), windows(3, 300));
    let ranges = position_ranges(300);
    assert_eq!(ranges, [0..128, 128..256, 256..300]);
    let (mut nll, mut kl, mut same) = (vec![vec![0.0; 3]; 3], [0.0; 3], [0.0; 3]);
    let alone = (0..3).map(|row| windows.rows(row..row + 1).unwrap());
    for (index, window) in alone.enumerate() {
        let (p, q) = (log_probabilities(&model, &window), log_probabilities(&other, &window));
        let best = |row: &Vec<f64>| (0..row.len()).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        for (range, positions) in ranges.iter().enumerate() {
            let (count, predicted) = (
                positions.len() as f64,
                (positions.end.min(299) - positions.start) as f64,
            );
            for t in positions.clone() {
                if t < 299 {
                    nll[range][index] -= p[t][window.ids()[t + 1] as usize] / predicted;
                }
                let terms = p[t].iter().zip(&q[t]).map(|(p, q)| p.exp() * (p - q));
                kl[range] += terms.sum::<f64>() / (3.0 * count);
                same[range] += f64::from(u8::from(best(&p[t]) == best(&q[t]))) / (3.0 * count);
            }
        }
    }
    let options = EvalOptions::default();
    let (all, found) = perplexity_by_position(&model, &windows, &options, &mut Silent).unwrap();
    assert_eq!(all, perplexity(&model, &windows, &options, &mut Silent).unwrap());
    let (whole, compared) = divergence_by_position(&model, &other, &windows, &options, &mut Silent).unwrap();
    assert_eq!(
        whole,
        divergence(&model, &other, &windows, &options, &mut Silent).unwrap()
    );
    assert_eq!((found.len(), compared.len()), (3, 3));
    for (range, positions) in ranges.into_iter().enumerate() {
        let mean = nll[range].iter().sum::<f64>() / 3.0;
        let spread: f64 = nll[range].iter().map(|value| (value - mean).powi(2)).sum();
        let (found, compared) = (&found[range], &compared[range]);
        assert_eq!((&found.positions, &compared.positions), (&positions, &positions));
        assert!((found.mean_nll - mean).abs() < 1e-5, "{found:?} {mean}");
        assert!((found.perplexity - mean.exp()).abs() < 1e-4 * mean.exp());
        assert!((found.standard_error.unwrap() - (spread / 6.0).sqrt()).abs() < 1e-5);
        assert!((compared.kl - kl[range]).abs() < 1e-4, "{compared:?} {}", kl[range]);
        assert!((compared.top1_agreement - same[range]).abs() < 1e-9, "{compared:?}");
        assert_eq!(compared.predictions, 3 * positions.len());
    }
    let predictions: usize = found.iter().map(|range| range.predictions).sum();
    assert_eq!(predictions, all.predictions);
}

#[test]
fn what_cannot_be_evaluated_is_an_error() {
    let model = model();
    let run = |windows: &TokenBatch| perplexity(&model, windows, &EvalOptions::default(), &mut Silent);
    assert!(matches!(run(&windows(2, 1)), Err(EvalError::ShortWindow { found: 1 })));
    let foreign = TokenBatch::from_ids(vec![1, 2, 9999, 3], 1, 4).unwrap();
    assert!(run(&foreign).unwrap_err().to_string().contains("9999"));
}
