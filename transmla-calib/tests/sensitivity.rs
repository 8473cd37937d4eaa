//! Sensitivity statistics against plain loops, gradients against finite differences.

use std::path::{Path, PathBuf};

use transmla_calib::faer::{Mat, Scale};
use transmla_calib::{Sensitivity, output_gradients};
use transmla_core::burn::tensor::{Device, Tensor, TensorData};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::config::{RopeConfig, RopeLayout, RopeScaling};
use transmla_core::kernels::AttentionParameters;
use transmla_core::model::attention::{Attention, GroupedAttention};
use transmla_core::model::{Linear, Rotary};
use transmla_core::{CheckpointError, CoreError, Decoder, LayeredModel, Residency, TokenBatch};

const HEADS: usize = 4;
const GROUPS: usize = 2;
const WIDTH: usize = 4;
const TOKENS: usize = 6;
const HIDDEN: usize = 10;

/// Numbers in -1..1 that depend on the seed alone (splitmix64).
fn random(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) as f64 / u64::MAX as f64 * 2.0 - 1.0) as f32
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(values: &[f32], rows: usize) -> Tensor<2> {
    Tensor::from_data(
        TensorData::new(values.to_vec(), [rows, values.len() / rows]),
        &Device::flex(),
    )
}

/// A random attention as numbers; biases on q, k and v.
struct Numbers {
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    q_bias: Vec<f32>,
    k_bias: Vec<f32>,
    v_bias: Vec<f32>,
}

impl Numbers {
    fn new(seed: u64) -> Self {
        Self {
            q: random(HEADS * WIDTH * HIDDEN, seed),
            k: random(GROUPS * WIDTH * HIDDEN, seed ^ 1),
            v: random(GROUPS * WIDTH * HIDDEN, seed ^ 2),
            o: random(HIDDEN * HEADS * WIDTH, seed ^ 3),
            q_bias: random(HEADS * WIDTH, seed ^ 4),
            k_bias: random(GROUPS * WIDTH, seed ^ 5),
            v_bias: random(GROUPS * WIDTH, seed ^ 6),
        }
    }

    fn attention(&self) -> GroupedAttention {
        let linear = |weight: &[f32], bias: &[f32]| Linear {
            weight: tensor(weight, bias.len()),
            bias: Some(Tensor::from_data(
                TensorData::new(bias.to_vec(), [bias.len()]),
                &Device::flex(),
            )),
        };
        GroupedAttention {
            q: linear(&self.q, &self.q_bias),
            k: linear(&self.k, &self.k_bias),
            v: linear(&self.v, &self.v_bias),
            o: Linear::new(tensor(&self.o, HIDDEN)),
            query_heads: HEADS,
            key_heads: GROUPS,
            q_norm: None,
            k_norm: None,
            parameters: AttentionParameters::of_width(WIDTH),
        }
    }
}

fn rope() -> RopeConfig {
    RopeConfig {
        theta: 50.0,
        dim: WIDTH,
        rotated: WIDTH,
        layout: RopeLayout::HalfSplit,
        scaling: RopeScaling::Default,
    }
}

fn rotary(tokens: usize) -> Rotary {
    Rotary::new(&rope(), 0..tokens, &Device::flex())
}

/// `[tokens][rows]`: `W x + b` of every token.
fn project(weight: &[f32], bias: &[f32], inputs: &[f32]) -> Vec<Vec<f64>> {
    let row = |x: &[f32], i: usize| -> f64 {
        let products = weight[i * HIDDEN..(i + 1) * HIDDEN].iter().zip(x);
        f64::from(bias[i]) + products.map(|(w, x)| f64::from(*w) * f64::from(*x)).sum::<f64>()
    };
    let token = |x: &[f32]| (0..bias.len()).map(|i| row(x, i)).collect();
    inputs.chunks_exact(HIDDEN).map(token).collect()
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Sums of the statistics over sequences, from their definition.
struct Sums {
    profile: Vec<Vec<Vec<f64>>>,
    query: Vec<Mat<f64>>,
    value: Vec<Mat<f64>>,
}

impl Sums {
    fn new() -> Self {
        Self {
            profile: vec![vec![vec![0.0; TOKENS]; WIDTH / 2]; HEADS],
            query: vec![Mat::zeros(WIDTH, WIDTH); HEADS],
            value: vec![Mat::zeros(WIDTH, WIDTH); HEADS],
        }
    }

    fn add(&mut self, numbers: &Numbers, inputs: &[f32], gradients: &[f32]) {
        self.add_scored(numbers, inputs, gradients, &AttentionParameters::of_width(WIDTH));
    }

    fn add_scored(&mut self, numbers: &Numbers, inputs: &[f32], gradients: &[f32], parameters: &AttentionParameters) {
        let q = project(&numbers.q, &numbers.q_bias, inputs);
        let k = project(&numbers.k, &numbers.k_bias, inputs);
        let v = project(&numbers.v, &numbers.v_bias, inputs);
        let frequencies = rope().frequencies();
        for head in 0..HEADS {
            let (own, shared) = (head * WIDTH, head / (HEADS / GROUPS) * WIDTH);
            let values: Vec<&[f64]> = v.iter().map(|v| &v[shared..shared + WIDTH]).collect();
            for t in 0..TOKENS {
                let query = &q[t][own..own + WIDTH];
                let score = |u: usize| -> f64 {
                    let key = &k[u][shared..shared + WIDTH];
                    let term = |j: usize| {
                        let i = j + WIDTH / 2;
                        let (sin, cos) = (frequencies[j] * (t - u) as f64).sin_cos();
                        // Re conj(q) k e^{-i w (t - u)}
                        let re = query[j] * key[j] + query[i] * key[i];
                        let im = query[j] * key[i] - query[i] * key[j];
                        re * cos + im * sin
                    };
                    (0..WIDTH / 2).map(term).sum::<f64>() * parameters.scale
                };
                let bounded = |u: usize| parameters.softcap.map_or(score(u), |c| c * (score(u) / c).tanh());
                let slope = |u: usize| parameters.softcap.map_or(1.0, |c| 1.0 - (bounded(u) / c).powi(2));
                let seen = |u: usize| parameters.window.is_none_or(|window| u + window > t);
                let weight = |u: usize| if seen(u) { bounded(u).exp() } else { 0.0 };
                let weights: Vec<f64> = (0..=t).map(weight).collect();
                let total: f64 = weights.iter().sum();
                let p: Vec<f64> = weights.iter().map(|weight| weight / total).collect();
                let output: Vec<f64> = (0..WIDTH).map(|i| (0..=t).map(|u| p[u] * values[u][i]).sum()).collect();
                // W_O,hᵀ g
                let g = &gradients[t * HIDDEN..(t + 1) * HIDDEN];
                let weight = |out: usize, i: usize| f64::from(numbers.o[out * HEADS * WIDTH + own + i]);
                let back = |i: usize| (0..HIDDEN).map(|out| f64::from(g[out]) * weight(out, i)).sum();
                let r: Vec<f64> = (0..WIDTH).map(back).collect();
                let mut sum_a = 0.0;
                for u in 1..=t {
                    let gap = dot(&r, values[u]) - dot(&r, &output);
                    let a = (p[u] * gap * slope(u)).powi(2);
                    for (j, profile) in self.profile[head].iter_mut().enumerate() {
                        let key = &k[u][shared..shared + WIDTH];
                        profile[t - u] += a * (key[j].powi(2) + key[j + WIDTH / 2].powi(2));
                    }
                    sum_a += a;
                }
                let sum_p: f64 = p.iter().map(|p| p * p).sum();
                for i in 0..WIDTH {
                    for j in 0..WIDTH {
                        self.query[head][(i, j)] += sum_a * query[i] * query[j];
                        self.value[head][(i, j)] += sum_p * r[i] * r[j];
                    }
                }
            }
        }
    }

    fn assert_equal(&self, found: &Sensitivity, tokens: usize) {
        let (profiles, queries, values) = (found.profiles(), found.query_moments(), found.value_metrics());
        assert_eq!((profiles.len(), queries.len(), values.len()), (HEADS, HEADS, HEADS));
        for head in 0..HEADS {
            assert_eq!(profiles[head].len(), WIDTH / 2);
            for (j, (profile, sums)) in profiles[head].iter().zip(&self.profile[head]).enumerate() {
                let sum: f64 = sums.iter().sum();
                assert!((profile.iter().sum::<f64>() - 1.0).abs() < 1e-12);
                assert_eq!(profile.len(), TOKENS);
                for (distance, share) in profile.iter().enumerate() {
                    let expected = sums[distance] / sum;
                    assert!(
                        (share - expected).abs() < 1e-5,
                        "head {head}, pair {j}, distance {distance}: {share} and {expected}"
                    );
                }
            }
            for (found, expected) in [(&queries[head], &self.query[head]), (&values[head], &self.value[head])] {
                let expected = Scale(1.0 / tokens as f64) * expected;
                let error = (found - &expected).norm_max();
                assert!(error < 2e-5 * expected.norm_max(), "head {head}: {error}");
            }
        }
    }
}

#[test]
fn statistics_are_what_their_definition_says() {
    for seed in 0..4 {
        let numbers = Numbers::new(seed);
        let (inputs, gradients) = (random(TOKENS * HIDDEN, seed ^ 8), random(TOKENS * HIDDEN, seed ^ 9));
        let mut expected = Sums::new();
        expected.add(&numbers, &inputs, &gradients);
        let mut found = Sensitivity::new(HEADS, WIDTH, TOKENS);
        let (x, g) = (tensor(&inputs, TOKENS), tensor(&gradients, TOKENS));
        found.add(&numbers.attention(), &x, &g, 1, &rotary(TOKENS)).unwrap();
        expected.assert_equal(&found, TOKENS);
    }
}

#[test]
fn statistics_know_scale_bound_and_window() {
    let parameters = AttentionParameters {
        scale: 1.3,
        softcap: Some(0.7),
        window: Some(3),
    };
    let numbers = Numbers::new(7);
    let (inputs, gradients) = (random(TOKENS * HIDDEN, 70), random(TOKENS * HIDDEN, 71));
    let mut expected = Sums::new();
    expected.add_scored(&numbers, &inputs, &gradients, &parameters);
    let mut found = Sensitivity::new(HEADS, WIDTH, TOKENS);
    let (x, g) = (tensor(&inputs, TOKENS), tensor(&gradients, TOKENS));
    let attention = GroupedAttention {
        parameters,
        ..numbers.attention()
    };
    found.add(&attention, &x, &g, 1, &rotary(TOKENS)).unwrap();
    expected.assert_equal(&found, TOKENS);
}

/// All at once, blocks that divide the sequence and others, one query at a time.
#[test]
fn statistics_are_the_same_however_many_scores_are_computed_at_once() {
    let parameters = AttentionParameters {
        scale: 1.1,
        softcap: Some(0.9),
        window: Some(4),
    };
    let numbers = Numbers::new(61);
    let (inputs, gradients) = (random(TOKENS * HIDDEN, 62), random(TOKENS * HIDDEN, 63));
    for parameters in [AttentionParameters::of_width(WIDTH), parameters] {
        let mut expected = Sums::new();
        expected.add_scored(&numbers, &inputs, &gradients, &parameters);
        let attention = GroupedAttention {
            parameters,
            ..numbers.attention()
        };
        let (x, g) = (tensor(&inputs, TOKENS), tensor(&gradients, TOKENS));
        for queries in 0..=TOKENS {
            let scores = queries * HEADS * TOKENS;
            let mut found = Sensitivity::new(HEADS, WIDTH, TOKENS).scores_at_once(scores);
            found.add(&attention, &x, &g, 1, &rotary(TOKENS)).unwrap();
            expected.assert_equal(&found, TOKENS);
        }
    }
}

#[test]
fn memory_grows_with_the_length_of_a_sequence_and_not_its_square() {
    let bytes = |sequence| Sensitivity::peak_bytes(32, 128, sequence) as f64;
    assert!(bytes(8192) < 2.1 * bytes(4096), "{} {}", bytes(8192), bytes(4096));
    assert!(bytes(4096) < (2u64 << 30) as f64, "{}", bytes(4096));
}

#[test]
fn sequences_add_up_however_they_are_batched() {
    let numbers = Numbers::new(21);
    let (inputs, gradients) = (random(3 * TOKENS * HIDDEN, 22), random(3 * TOKENS * HIDDEN, 23));
    let mut expected = Sums::new();
    let sequences = || {
        inputs
            .chunks_exact(TOKENS * HIDDEN)
            .zip(gradients.chunks_exact(TOKENS * HIDDEN))
    };
    sequences().for_each(|(x, g)| expected.add(&numbers, x, g));
    let (attention, rotary) = (numbers.attention(), rotary(TOKENS));

    let mut together = Sensitivity::new(HEADS, WIDTH, TOKENS);
    let (x, g) = (tensor(&inputs, 3 * TOKENS), tensor(&gradients, 3 * TOKENS));
    together.add(&attention, &x, &g, 3, &rotary).unwrap();
    expected.assert_equal(&together, 3 * TOKENS);

    let mut separately = Sensitivity::new(HEADS, WIDTH, TOKENS);
    for (x, g) in sequences() {
        let (x, g) = (tensor(x, TOKENS), tensor(g, TOKENS));
        separately.add(&attention, &x, &g, 1, &rotary).unwrap();
    }
    expected.assert_equal(&separately, 3 * TOKENS);
}

#[test]
fn without_gradients_every_head_looks_at_itself() {
    let numbers = Numbers::new(31);
    let mut none = Sensitivity::new(HEADS, WIDTH, TOKENS);
    let empty = none.profiles();
    let x = tensor(&random(TOKENS * HIDDEN, 32), TOKENS);
    none.add(&numbers.attention(), &x, &x.zeros_like(), 1, &rotary(TOKENS))
        .unwrap();
    for profiles in [empty, none.profiles()] {
        assert!(
            profiles
                .iter()
                .flatten()
                .all(|profile| profile[0] == 1.0 && profile[1..].iter().all(|share| *share == 0.0))
        );
    }
    assert_eq!(none.query_moments()[0], Mat::<f64>::zeros(WIDTH, WIDTH));
}

#[test]
fn a_nan_is_not_taken_for_a_head_that_notices_nothing() {
    let mut sensitivity = Sensitivity::new(HEADS, WIDTH, TOKENS);
    let x = tensor(&random(TOKENS * HIDDEN, 42), TOKENS);
    let gradients = x.clone() * f32::NAN;
    sensitivity
        .add(&Numbers::new(41).attention(), &x, &gradients, 1, &rotary(TOKENS))
        .unwrap();
    assert!(sensitivity.profiles()[0][0].iter().any(|share| share.is_nan()));
}

#[test]
fn what_does_not_fit_is_an_error() {
    let attention = Numbers::new(51).attention();
    let x = tensor(&random(TOKENS * HIDDEN, 52), TOKENS);
    let narrow = x.clone().narrow(1, 0, HIDDEN - 1);
    let short = x.clone().narrow(0, 0, TOKENS - 1);
    let refused = |mut of: Sensitivity, x: &Tensor<2>, g: &Tensor<2>, batch: usize, positions: usize| {
        let result = of.add(&attention, x, g, batch, &rotary(positions));
        assert!(matches!(result, Err(CoreError::Shape { .. })), "{result:?}");
    };
    let fitting = || Sensitivity::new(HEADS, WIDTH, TOKENS);
    refused(fitting(), &short, &short, 1, TOKENS);
    refused(fitting(), &x, &x, 2, TOKENS);
    refused(fitting(), &x, &x, 0, TOKENS);
    refused(fitting(), &x, &short, 1, TOKENS);
    refused(fitting(), &x, &narrow, 1, TOKENS);
    refused(fitting(), &narrow, &narrow, 1, TOKENS);
    refused(fitting(), &x, &x, 1, TOKENS + 1);
    refused(Sensitivity::new(HEADS / 2, WIDTH * 2, TOKENS), &x, &x, 1, TOKENS);
    refused(Sensitivity::new(HEADS, WIDTH / 2, TOKENS), &x, &x, 1, TOKENS);
    refused(Sensitivity::new(HEADS, 0, TOKENS), &x, &x, 1, TOKENS);
    refused(Sensitivity::new(0, WIDTH, TOKENS), &x, &x, 1, TOKENS);
    refused(Sensitivity::new(HEADS, WIDTH, 0), &x, &x, 1, TOKENS);
    for key_heads in [0, 3] {
        let odd = GroupedAttention {
            key_heads,
            ..attention.clone()
        };
        assert!(fitting().add(&odd, &x, &x, 1, &rotary(TOKENS)).is_err());
    }
}

fn model(family: &str) -> Decoder {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let folder: PathBuf = match family {
        "stories260k" => root.join("transmla-cli/models").join(family),
        _ => root.join("transmla-core/tests/families").join(family),
    };
    Decoder::open(&folder, &Device::flex(), Residency::Loaded).unwrap()
}

fn reference_tokens(family: &str, batch: usize, sequence: usize) -> TokenBatch {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let path = root
        .join("transmla-core/tests/families")
        .join(family)
        .join("reference.safetensors");
    let all = read_input_ids(&path).unwrap();
    let ids: Vec<i64> = (0..batch)
        .flat_map(|row| all.row(row % all.batch())[row..row + sequence].to_vec())
        .collect();
    TokenBatch::from_ids(ids, batch, sequence).unwrap()
}

/// The sum over all sequences of -log p(next token), with `shift` added to the attention output of one layer.
fn loss(model: &Decoder, tokens: &TokenBatch, shifted: usize, shift: &Tensor<2>) -> f64 {
    let (batch, sequence) = (tokens.batch(), tokens.sequence());
    let mut hidden = model.embed(tokens).unwrap().flatten::<2>(0, 1);
    for index in 0..model.config().num_hidden_layers {
        let layer = model.layer(index).unwrap();
        let rotary = Rotary::new(model.config().rope.of(index), 0..sequence, model.device());
        let mut attended =
            layer
                .attention
                .forward(layer.attention_input(hidden.clone().unsqueeze()), batch, &rotary, None);
        if index == shifted {
            attended = attended + shift.clone();
        }
        hidden = layer.add_attention(hidden, attended);
        hidden = layer.feed_forward(hidden).unwrap();
    }
    let logits = model.head().unwrap().logits(hidden);
    let vocabulary = logits.dims()[1];
    let logits: Vec<f64> = logits.into_data().iter::<f32>().map(f64::from).collect();
    let mut sum = 0.0;
    for (row, logits) in logits.chunks_exact(vocabulary).enumerate() {
        if (row + 1) % sequence != 0 {
            let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let normaliser = largest + logits.iter().map(|l| (l - largest).exp()).sum::<f64>().ln();
            sum += normaliser - logits[tokens.ids()[row + 1] as usize];
        }
    }
    sum
}

/// Directional derivatives of every layer's attention output by central differences, to a hundredth of what they would be
/// if the direction were the gradient's own (the loss is computed in f32).
fn check_gradients(family: &str, tokens: &TokenBatch) {
    let model = model(family);
    let gradients = output_gradients(&model, tokens).unwrap();
    assert_eq!(gradients.len(), model.config().num_hidden_layers);
    let number = |tensor: Tensor<1>| -> f64 { tensor.into_data().iter::<f32>().map(f64::from).sum() };
    for (layer, gradient) in gradients.iter().enumerate() {
        let [rows, hidden] = gradient.dims();
        assert_eq!((rows, hidden), (tokens.tokens(), model.config().hidden_size));
        let norm = number(gradient.clone().square().sum()).sqrt();
        assert!(norm > 0.0);
        // Along the gradient, along one row of it, and along noise.
        let own = gradient.clone().div_scalar(norm);
        let row = rows / 2;
        let one = Tensor::zeros([rows, hidden], model.device())
            .slice_assign([row..row + 1, 0..hidden], own.clone().narrow(0, row, 1));
        let noise = tensor(&random(rows * hidden, layer as u64), rows)
            .div_scalar((rows * hidden) as f64)
            .mul_scalar(3.0);
        for (name, direction) in [("own", own), ("row", one), ("noise", noise)] {
            let step = 0.02;
            let at = |step: f64| loss(&model, tokens, layer, &direction.clone().mul_scalar(step));
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let expected = number((gradient.clone() * direction.clone()).sum());
            let error = (slope - expected).abs();
            assert!(
                error < 0.01 * norm,
                "{family}, layer {layer}, {name}: {slope} and {expected}, norm {norm}"
            );
        }
    }
}

#[test]
fn gradients_are_slopes_of_the_loss() {
    check_gradients("qwen2.5", &reference_tokens("qwen2.5", 2, 8));
    check_gradients("mistral", &reference_tokens("mistral", 1, 12));
    // More rows than logits are held at once.
    check_gradients("stories260k", &stories_tokens(9, 32));
}

/// Through norms behind attention with and without norms in front, bounds, windows, two RoPEs, experts and norms of heads.
#[test]
fn gradients_of_every_family_are_slopes() {
    for family in ["gemma2", "gemma3", "qwen3", "olmo2", "mistral-window"] {
        check_gradients(family, &reference_tokens(family, 1, 30));
    }
    // Few tokens: one that changes its experts along the way makes a jump, which is no slope.
    for family in ["mixtral", "qwen3-moe", "qwen2-moe"] {
        check_gradients(family, &reference_tokens(family, 1, 7));
    }
}

#[test]
fn gradients_of_latent_attention_are_slopes_too() {
    check_gradients("deepseek-v3", &reference_tokens("deepseek-v3", 2, 8));
}

fn stories_tokens(batch: usize, sequence: usize) -> TokenBatch {
    let ids = random(batch * sequence, 61)
        .iter()
        .map(|x| ((x + 1.0) * 255.0) as i64)
        .collect();
    TokenBatch::from_ids(ids, batch, sequence).unwrap()
}

/// A sequence's loss is its own: nothing flows between the sequences of a batch, nor to a sequence's last prediction.
#[test]
fn gradients_of_a_batch_are_those_of_its_sequences() {
    let model = model("stories260k");
    let tokens = stories_tokens(3, 10);
    let together = output_gradients(&model, &tokens).unwrap();
    for row in 0..3 {
        let alone = output_gradients(&model, &tokens.rows(row..row + 1).unwrap()).unwrap();
        for (together, alone) in together.iter().zip(&alone) {
            let part = together.clone().narrow(0, row * 10, 10);
            let difference: f32 = (part - alone.clone()).abs().max().into_scalar();
            assert!(difference < 1e-4, "{difference}");
        }
    }
    // The last token predicts nothing that is known, so nothing depends on its last layer.
    let last = together.last().unwrap().clone().narrow(0, 9, 1);
    assert_eq!(last.abs().max().into_scalar::<f32>(), 0.0);
    // One token alone predicts nothing at all.
    for gradient in output_gradients(&model, &stories_tokens(2, 1)).unwrap() {
        assert_eq!(gradient.abs().max().into_scalar::<f32>(), 0.0);
    }
}

#[test]
fn a_streamed_model_has_the_gradients_of_a_loaded_one() {
    let loaded = model("stories260k");
    let streamed = loaded.on_device(&Device::flex());
    let tokens = stories_tokens(1, 12);
    let (a, b) = (
        output_gradients(&loaded, &tokens).unwrap(),
        output_gradients(&streamed, &tokens).unwrap(),
    );
    for (a, b) in a.into_iter().zip(b) {
        assert_eq!((a - b).abs().max().into_scalar::<f32>(), 0.0);
    }
}

#[test]
fn tokens_outside_the_vocabulary_are_an_error() {
    let tokens = TokenBatch::from_ids(vec![1, 512], 1, 2).unwrap();
    assert!(matches!(
        output_gradients(&model("stories260k"), &tokens),
        Err(CoreError::Checkpoint(CheckpointError::TokenOutOfRange { id: 512, .. }))
    ));
}

/// The statistics take a real layer's inputs and gradients as they come.
#[test]
fn statistics_of_a_real_layer() {
    let (model, tokens) = (model("stories260k"), stories_tokens(2, 16));
    let gradients = output_gradients(&model, &tokens).unwrap();
    let layer = model.layer(0).unwrap();
    let Attention::Grouped(attention) = &layer.attention else {
        unreachable!()
    };
    let inputs = layer.attention_input(model.embed(&tokens).unwrap());
    let rotary = Rotary::new(model.config().rope.of(0), 0..16, model.device());
    let width = model.config().rope.of(0).dim;
    let mut sensitivity = Sensitivity::new(attention.query_heads, width, 16);
    sensitivity.add(attention, &inputs, &gradients[0], 2, &rotary).unwrap();
    for profile in sensitivity.profiles().iter().flatten() {
        assert!((profile.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        assert!(profile.iter().all(|share| *share >= 0.0));
        assert_eq!(profile[15], 0.0, "only the first key is 15 tokens away");
    }
}
