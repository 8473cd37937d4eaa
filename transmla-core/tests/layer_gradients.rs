//! Gradients through layers with latent attention, against differences of the loss.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::model::attention::Attention;
use transmla_core::model::{LayerRotary, Linear, Projections};
use transmla_core::{Decoder, DecoderLayer, LayeredModel, Residency, host_values};

fn family(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families").join(name)
}

/// Numbers in -1..1 that depend on the seed alone.
fn random(shape: [usize; 2], seed: u64) -> Tensor<2> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let values: Vec<f32> = (0..shape[0] * shape[1]).map(|_| next()).collect();
    Tensor::from_data(TensorData::new(values, shape), &Device::flex())
}

fn dot(a: Tensor<2>, b: Tensor<2>) -> f64 {
    let (a, b) = (host_values(a).unwrap(), host_values(b).unwrap());
    a.iter().zip(&b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
}

struct Problem {
    layer: DecoderLayer,
    rotary: LayerRotary,
    index: usize,
    hidden: Tensor<3>,
    output: Tensor<2>,
}

impl Problem {
    fn of(name: &str, index: usize, change: impl Fn(&mut DecoderLayer)) -> Self {
        let device = Device::flex();
        let model = Decoder::open(&family(name), &device, Residency::Streamed).unwrap();
        let ids = read_input_ids(&family(name).join("reference.safetensors")).unwrap();
        let sequence = ids.sequence();
        let rotary = LayerRotary::new(&model.config().rope, 0..sequence, &device);
        let mut hidden = model.embed(&ids).unwrap();
        for before in 0..index {
            hidden = model
                .layer(before)
                .unwrap()
                .forward(hidden, rotary.of(before), None)
                .unwrap();
        }
        let mut layer = model.layer(index).unwrap();
        change(&mut layer);
        let [batch, sequence, width] = hidden.dims();
        Self {
            layer,
            rotary,
            index,
            output: random([batch * sequence, width], 5),
            hidden,
        }
    }

    fn loss(&self, layer: &DecoderLayer, hidden: &Tensor<3>) -> f64 {
        let behind = layer.forward(hidden.clone(), self.rotary.of(self.index), None).unwrap();
        dot(behind.flatten(0, 1), self.output.clone())
    }

    /// Compares the slope along a random direction of each projection, and of the input.
    fn check(&self, which: Projections, names: &[&str]) {
        let (rotary, output) = (self.rotary.of(self.index), self.output.clone());
        let gradients = self
            .layer
            .gradients(which, self.hidden.clone(), rotary, output)
            .unwrap();
        let mut found = Vec::new();
        let mapped = self.layer.clone().map_projections(which, &mut |name, tensor| {
            found.push((name.to_owned(), tensor.clone()));
            tensor
        });
        mapped.unwrap();
        assert_eq!(found.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), names);
        assert_eq!(gradients.projections.len(), names.len());
        for (index, (name, tensor)) in found.iter().enumerate() {
            let size = (dot(tensor.clone(), tensor.clone()) / tensor.dims().iter().product::<usize>() as f64).sqrt();
            let step = 2e-3 * size.max(1e-3);
            let direction = random(tensor.dims(), 11 + index as u64);
            let moved = |by: f64| {
                let mut at = 0;
                let layer = self.layer.clone().map_projections(which, &mut |_, tensor| {
                    at += 1;
                    match at == index + 1 {
                        true => tensor + direction.clone().mul_scalar(by),
                        false => tensor,
                    }
                });
                self.loss(&layer.unwrap(), &self.hidden)
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            let expected = dot(gradients.projections[index].clone(), direction.clone());
            let scale = dot(
                gradients.projections[index].clone(),
                gradients.projections[index].clone(),
            )
            .sqrt();
            assert!(scale > 0.0, "{name} has no gradient");
            assert!(
                (slope - expected).abs() < 0.01 * scale,
                "{name}: {slope} {expected}, length {scale}"
            );
        }
        let [batch, sequence, width] = self.hidden.dims();
        let direction = random([batch * sequence, width], 77);
        let moved = |by: f64| {
            let change = direction.clone().mul_scalar(by).reshape([batch, sequence, width]);
            self.loss(&self.layer, &(self.hidden.clone() + change))
        };
        let slope = (moved(1e-3) - moved(-1e-3)) / 2e-3;
        let expected = dot(gradients.hidden.clone(), direction.clone());
        let scale = dot(gradients.hidden.clone(), gradients.hidden).sqrt();
        assert!(
            (slope - expected).abs() < 0.01 * scale,
            "input: {slope} {expected}, length {scale}"
        );
    }
}

const ATTENTION: [&str; 4] = [
    "self_attn.q_proj.weight",
    "self_attn.kv_a_proj_with_mqa.weight",
    "self_attn.kv_b_proj.weight",
    "self_attn.o_proj.weight",
];

#[test]
fn every_projection_of_a_layer_has_its_gradient() {
    let problem = Problem::of("deepseek-v3", 1, |_| {});
    problem.check(Projections::Attention, &ATTENTION);
    let all = ["mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight"];
    problem.check(Projections::All, &[&ATTENTION[..], &all].concat());
}

#[test]
fn low_rank_queries_have_gradients() {
    let names = [
        "self_attn.q_a_proj.weight",
        "self_attn.q_b_proj.weight",
        "self_attn.kv_a_proj_with_mqa.weight",
        "self_attn.kv_b_proj.weight",
        "self_attn.o_proj.weight",
    ];
    Problem::of("deepseek-v3-qlora", 0, |_| {}).check(Projections::Attention, &names);
}

/// Windows, soft-caps and biases, as families other than DeepSeek have them.
#[test]
fn biases_windows_and_soft_caps_have_their_part() {
    let problem = Problem::of("deepseek-v3", 0, |layer| {
        let Attention::Latent(attention) = &mut layer.attention else {
            panic!("not latent");
        };
        attention.parameters.window = Some(5);
        attention.parameters.softcap = Some(2.0);
        let bias = |linear: &mut Linear, seed| {
            let rows = linear.weight.dims()[0];
            linear.bias = Some(random([rows, 1], seed).mul_scalar(0.3).reshape([rows]));
        };
        bias(&mut attention.kv_down, 1);
        if let Some(up) = &mut attention.kv_up {
            bias(up, 2);
        }
        bias(&mut attention.o, 3);
    });
    let names = [
        "self_attn.q_proj.weight",
        "self_attn.kv_a_proj_with_mqa.weight",
        "self_attn.kv_a_proj_with_mqa.bias",
        "self_attn.kv_b_proj.weight",
        "self_attn.kv_b_proj.bias",
        "self_attn.o_proj.weight",
        "self_attn.o_proj.bias",
    ];
    problem.check(Projections::Attention, &names);
}

/// Through the experts that a token goes to, their shares and what all tokens share: the same as burn's autodiff gives.
#[test]
fn gradients_through_experts_are_those_of_autodiff() {
    for name in ["mixtral", "qwen3-moe", "qwen2-moe"] {
        // One of Qwen's two has an MLP.
        for index in [0, 1] {
            let problem = Problem::of(name, index, |_| {});
            let model = Decoder::open(&family(name), &Device::flex(), Residency::Streamed).unwrap();
            let traced = model.on_device(&Device::flex().autodiff()).layer(index).unwrap();
            let middle = problem.hidden.clone().flatten::<2>(0, 1);
            let leaf = middle.clone().autodiff().require_grad();
            let behind = traced.feed_forward(leaf.clone()).unwrap();
            let gradients = (behind * problem.output.clone().autodiff()).sum().backward();
            let expected = leaf.grad(&gradients).unwrap().without_autodiff();
            let size = dot(expected.clone(), expected.clone()).sqrt();
            // The layer may be on either device.
            for layer in [&problem.layer, &traced] {
                let found = layer
                    .feed_forward_gradient(middle.clone(), problem.output.clone())
                    .unwrap();
                let off = found - expected.clone();
                let off = dot(off.clone(), off).sqrt();
                assert!(off < 1e-5 * size, "{name}, layer {index}: {off} of {size}");
            }
        }
    }
}

/// Layers of grouped-query models have nothing to learn here.
#[test]
fn other_attention_is_refused() {
    let problem = Problem::of("mistral", 0, |_| {});
    let (rotary, output) = (problem.rotary.of(0), problem.output.clone());
    let refused = problem
        .layer
        .gradients(Projections::Attention, problem.hidden.clone(), rotary, output);
    assert!(refused.unwrap_err().to_string().contains("latent attention"));
}
