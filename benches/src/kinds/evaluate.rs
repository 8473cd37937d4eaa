//! The perplexity of a model against a forward of the same text alone.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use burn::tensor::{Device, Tensor};
use serde_json::{Map, Value};
use tempfile::TempDir;
use transmla_core::synthetic::write_random_model;
use transmla_core::{
    AttentionConfig, Decoder, LayeredModel, ModelConfig, Residency, StorageDtype, TokenBatch, host_values,
};
use transmla_eval::{EvalOptions, perplexity};

use crate::case::{Case, Timed, compare, within};
use crate::catalogue::{Heads, Network, Weights};
use crate::numbers::Numbers;

pub(crate) fn build(network: Network, windows: usize, sequence: usize) -> Box<dyn Case> {
    let temporary = tempfile::tempdir().expect("a temporary folder can be made");
    let folder = folder_of(network, temporary.path());
    let open = |residency| Decoder::open(&folder, &Device::flex(), residency).expect("the model can be read");
    let ids = Numbers::new(10).ids(windows * sequence, network.vocabulary);
    Box::new(Evaluation {
        network,
        loaded: open(Residency::Loaded),
        streamed: open(Residency::Streamed),
        text: TokenBatch::from_ids(ids, windows, sequence).expect("there are as many ids as the windows take"),
        _folder: temporary,
    })
}

/// The folder of a model, of random weights in a temporary one.
pub(super) fn folder_of(network: Network, temporary: &Path) -> PathBuf {
    match network.weights {
        Weights::Stories260k => repository("transmla-cli/models/stories260k"),
        Weights::SmolLm2Shape => random_smollm2(network.layers, temporary),
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(path)
}

/// Writes a model of random weights in the shape of SmolLM2-135M with the given number of layers.
fn random_smollm2(layers: usize, folder: &Path) -> PathBuf {
    let file = repository("transmla-cli/tests/configs/smollm2-135m/config.json");
    let text = fs::read(&file).expect("the configuration of SmolLM2 is in the repository");
    let mut config: Map<String, Value> = serde_json::from_slice(&text).expect("it is an object");
    config.insert("num_hidden_layers".to_owned(), layers.into());
    write_random_model(config, &folder.join("model"), StorageDtype::Bf16, 1 << 32, 10)
        .expect("the model can be written")
}

struct Evaluation {
    network: Network,
    loaded: Decoder,
    streamed: Decoder,
    text: TokenBatch,
    /// Folder of the random weights, which streaming reads.
    _folder: TempDir,
}

impl Evaluation {
    /// Computes the logits of the windows in batches of the evaluation's size, and passes each to `take`.
    fn forward(&self, model: &Decoder, mut take: impl FnMut(&TokenBatch, Tensor<3>)) {
        let batch = EvalOptions::default().batch_size;
        for start in (0..self.text.batch()).step_by(batch) {
            let part = self.text.rows(start..start + batch).expect("the start is within");
            let logits = model.logits(&part, None).expect("the ids are in the vocabulary");
            take(&part, logits);
        }
    }

    fn mean_nll(&self, model: &Decoder) -> f64 {
        let result = perplexity(model, &self.text, &EvalOptions::default(), &mut transmla_eval::Silent);
        result.expect("the ids are in the vocabulary").mean_nll
    }

    /// The mean negative log-likelihood by its definition, in `f64`, from the logits of a forward pass.
    fn expected_nll(&self) -> f64 {
        let mut sum = 0.0;
        self.forward(&self.loaded, |part, logits| {
            let [_, sequence, vocabulary] = logits.dims();
            let logits = host_values(logits).expect("logits can be read");
            for (row, logits) in logits.chunks_exact(vocabulary).enumerate() {
                let Some(next) = part.row(row / sequence).get(row % sequence + 1) else {
                    continue;
                };
                let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                let exponentials = logits.iter().map(|logit| f64::from(logit - largest).exp());
                let picked = f64::from(logits[*next as usize] - largest);
                sum += exponentials.sum::<f64>().ln() - picked;
            }
        });
        sum / (self.text.batch() * (self.text.sequence() - 1)) as f64
    }
}

impl Case for Evaluation {
    /// The model has the catalogue's sizes, and both evaluations agree with the logits of a forward pass.
    fn check(&self) -> anyhow::Result<()> {
        let found = sizes(self.loaded.config(), self.network.weights);
        if found != Some(self.network) {
            bail!("the model is {found:?}, the catalogue has {:?}", self.network);
        }
        let expected = self.expected_nll();
        for (what, model) in [("loaded", &self.loaded), ("streamed", &self.streamed)] {
            let difference = (self.mean_nll(model) - expected).abs();
            within(&format!("mean NLL, {what}"), difference, expected, 1e-5)?;
        }
        let first = |model| {
            let mut first = None;
            self.forward(model, |_, logits| {
                first.get_or_insert(logits);
            });
            first.context("no windows")
        };
        compare("streamed logits", &first(&self.streamed)?, &first(&self.loaded)?, 1e-5)
    }

    fn prepare(&self, strategy: usize) -> Timed<'_> {
        let model = if strategy < 2 { &self.loaded } else { &self.streamed };
        match strategy % 2 {
            0 => Box::new(|| {
                self.forward(model, |_, logits| {
                    black_box(logits);
                });
            }),
            _ => Box::new(|| {
                black_box(self.mean_nll(model));
            }),
        }
    }
}

/// Sizes of a configuration in the catalogue's terms; `None` if its attention is latent.
fn sizes(config: &ModelConfig, weights: Weights) -> Option<Network> {
    let AttentionConfig::Grouped(attention) = &config.attention else {
        return None;
    };
    Some(Network {
        weights,
        heads: Heads {
            hidden: config.hidden_size,
            query: config.num_attention_heads,
            key: attention.num_key_value_heads,
            width: attention.head_dim,
        },
        intermediate: config.intermediate_size,
        layers: config.num_hidden_layers,
        vocabulary: config.vocab_size,
    })
}
