//! The output projection by least squares: what the layer lost, as far as the attended values still tell it.

use faer::Mat;
use transmla_calib::SecondMoment;
use transmla_core::CoreError;
use transmla_core::model::attention::LatentAttention;
use transmla_core::model::{Linear, Rotary};

use crate::layer::ridge::{add_product, change};
use crate::layer::weights::to_linear;
use crate::solve::coherent::example::{Example, attended, residual_error};

/// The attention with the output projection that brings the residual stream closest to the original's on the training
/// sequences, or as it was, whichever is closer on the held-out ones; and its [`residual_error`] on these.
///
/// Minimises `Σ_t w_t |W a_t + b - m_t|² + λ |W - W°|²` over W, a being the attended values of all heads, m what the residual
/// stream misses, w [`Example::weight`] and W° the weights before: attention probabilities and values stay what they are.
/// There must be no norm between attention and residual stream.
///
/// # Errors
/// [`CoreError::Execution`] if activations are not finite or the device fails.
pub(crate) fn regress_output(
    attention: LatentAttention,
    training: &[Example],
    held_out: &[Example],
    rotary: &Rotary,
) -> Result<(LatentAttention, f64), CoreError> {
    let [hidden, width] = attention.o.weight.dims();
    let mut moment = SecondMoment::new(width, false);
    let mut product = Mat::<f64>::zeros(width, hidden);
    for example in training {
        let values = attended(&attention, example, rotary);
        let missing = example.missing.clone() - attention.o.forward(values.clone());
        let values = values * example.weight.clone().sqrt();
        let missing = missing * example.weight.clone().sqrt();
        moment.add(&values)?;
        add_product(&mut product, values, missing)?;
    }
    let gram = moment.matrix().to_owned();
    drop(moment);
    let change = change(gram, product.as_ref())
        .ok_or_else(|| CoreError::Execution("the attended values of the calibration text are not finite".into()))?;
    let change = to_linear(change.transpose(), width, &attention.o.weight.device()).weight;
    let regressed = LatentAttention {
        o: Linear {
            weight: attention.o.weight.clone() + change,
            bias: attention.o.bias.clone(),
        },
        ..attention.clone()
    };
    let error = |attention: &LatentAttention| residual_error(attention, None, held_out, rotary);
    let (after, before) = (error(&regressed)?, error(&attention)?);
    Ok(match after < before {
        true => (regressed, after),
        false => (attention, before),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::{Device, Tensor, TensorData};
    use transmla_core::config::{LatentConfig, RopeConfig, RopeLayout, RopeScaling};
    use transmla_core::host_values;
    use transmla_core::kernels::AttentionParameters;
    use transmla_core::model::attention::QueryProjection;

    const HIDDEN: usize = 6;
    const TOKENS: usize = 40;

    /// Numbers between -1 and 1 that repeat nowhere soon.
    fn matrix(seed: usize, rows: usize, columns: usize) -> Tensor<2> {
        let value = |i: usize| ((i * 7919 + seed * 104_729 + i * i * 31) % 2003) as f32 / 1001.5 - 1.0;
        let values = (0..rows * columns).map(value).collect::<Vec<f32>>();
        Tensor::from_data(TensorData::new(values, [rows, columns]), &Device::flex())
    }

    fn rope() -> RopeConfig {
        RopeConfig {
            theta: 1e4,
            dim: 2,
            rotated: 2,
            layout: RopeLayout::HalfSplit,
            scaling: RopeScaling::Default,
        }
    }

    /// Two heads of keys 2 + 2 wide and values 3 wide from a latent of 4.
    fn attention(output: usize) -> LatentAttention {
        LatentAttention {
            q: QueryProjection::Plain(Linear::new(matrix(1, 8, HIDDEN))),
            q_heads: None,
            key_scale: None,
            kv_down: Linear::new(matrix(2, 6, HIDDEN)),
            kv_norm: None,
            latent_map: None,
            kv_up: Some(Linear::new(matrix(3, 10, 4))),
            o: Linear::new(matrix(output, HIDDEN, 6)),
            heads: 2,
            shape: LatentConfig {
                q_lora_rank: None,
                latent_groups: 1,
                tied: false,
                kv_lora_rank: 4,
                qk_nope_head_dim: 2,
                qk_rope_head_dim: 2,
                v_head_dim: 3,
                latent_norm_eps: None,
                biases: false,
                key_norm_heads: None,
                key_norm_width: None,
            },
            parameters: AttentionParameters::of_width(4),
        }
    }

    /// What `attention` gives to random inputs, as what is missing.
    fn example(attention: &LatentAttention, seed: usize) -> Example {
        let rotary = Rotary::new(&rope(), 0..TOKENS, &Device::flex());
        let mut example = Example {
            inputs: matrix(seed, TOKENS, HIDDEN),
            output: matrix(seed, TOKENS, HIDDEN),
            missing: matrix(seed, TOKENS, HIDDEN),
            weight: matrix(seed + 1, TOKENS, 1).square().add_scalar(0.1),
            gradients: None,
            batch: 1,
        };
        example.missing = attention.o.forward(attended(attention, &example, &rotary));
        example
    }

    fn weights(attention: &LatentAttention) -> Vec<f32> {
        host_values(attention.o.weight.clone()).unwrap()
    }

    #[test]
    fn weights_that_give_what_is_missing_are_found() {
        let rotary = Rotary::new(&rope(), 0..TOKENS, &Device::flex());
        let (teacher, student) = (attention(4), attention(5));
        let training = [example(&teacher, 6), example(&teacher, 7)];
        let held_out = [example(&teacher, 8)];
        let before = residual_error(&student, None, &held_out, &rotary).unwrap();
        let (found, after) = regress_output(student, &training, &held_out, &rotary).unwrap();
        assert_eq!(after, residual_error(&found, None, &held_out, &rotary).unwrap());
        // What the ridge keeps of the first weights lies where the attended values hardly go.
        assert!(after < 1e-3 * before, "{before} {after}");
        // And what is right already is left.
        let (again, _) = regress_output(teacher.clone(), &training, &held_out, &rotary).unwrap();
        for (found, right) in weights(&again).into_iter().zip(weights(&teacher)) {
            assert!((found - right).abs() < 1e-4, "{found} {right}");
        }
    }

    #[test]
    fn what_does_not_help_on_held_out_text_is_not_taken() {
        let rotary = Rotary::new(&rope(), 0..TOKENS, &Device::flex());
        let student = attention(5);
        let (training, held_out) = ([example(&attention(4), 6)], [example(&student, 8)]);
        let (found, _) = regress_output(student.clone(), &training, &held_out, &rotary).unwrap();
        assert_eq!(weights(&found), weights(&student));
    }

    #[test]
    fn numbers_that_are_not_finite_are_an_error() {
        let rotary = Rotary::new(&rope(), 0..TOKENS, &Device::flex());
        let mut example = example(&attention(4), 6);
        example.inputs = example.inputs.mul_scalar(f32::NAN);
        let examples = [example];
        let error = regress_output(attention(5), &examples, &examples, &rotary).unwrap_err();
        assert!(error.to_string().contains("not finite"), "{error}");
    }
}
