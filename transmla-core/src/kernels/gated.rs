//! The activation of a gated MLP, `act(gate) · up`, and its gradient.
//!
//! Both activations are `x · σ(z)`: SiLU with `z = x`, GELU by its approximation with tanh with
//! `z = 2 sqrt(2/π) (x + 0.044715 x³)` (Hendrycks and Gimpel, arXiv 1606.08415), since `(1 + tanh(z/2)) / 2 = σ(z)`.

use burn::tensor::activation::sigmoid;
use burn::tensor::{Device, Tensor, TensorData};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use transmla_checkpoint::config::Activation;

use super::attention::on_host;
use super::exponential::exp;
use crate::host::host_values;

/// `2 sqrt(2/π)`.
const STEEPNESS: f32 = 1.595_769_2;

/// Factor of the cube.
const CUBE: f32 = 0.044_715;

/// Numbers that a thread takes at once.
const PIECE: usize = 1 << 14;

/// What [`gated_gradients`] gives, all `[rows, inner]`.
#[derive(Debug, Clone)]
pub(crate) struct GatedGradients {
    /// What [`gated`] gives.
    pub product: Tensor<2>,
    /// With respect to the gate's outputs.
    pub gate: Tensor<2>,
    /// With respect to the other factor.
    pub up: Tensor<2>,
}

/// `act(gate) · up`, of matrices of one shape.
///
/// On the CPU it takes the place of the gate, if nothing else holds that.
pub(crate) fn gated(activation: Activation, gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    if !(on_host(&gate) && on_host(&up) && gate.dims() == up.dims()) {
        let z = argument(activation, &gate);
        return gate * sigmoid(z) * up;
    }
    let shape = gate.dims();
    let (mut gate, up) = (numbers(gate), numbers(up));
    let arch = Arch::new();
    let piece = |(gate, up): (&mut [f32], &[f32])| arch.dispatch(Forward { activation, gate, up });
    match gate.len() <= PIECE {
        true => piece((&mut gate, &up)),
        false => gate.par_chunks_mut(PIECE).zip(up.par_chunks(PIECE)).for_each(piece),
    }
    tensor(gate, shape)
}

/// Gradients of a loss with respect to both factors of [`gated`], given that with respect to its result.
pub(crate) fn gated_gradients(
    activation: Activation,
    gate: Tensor<2>,
    up: Tensor<2>,
    output: Tensor<2>,
) -> GatedGradients {
    let shape = gate.dims();
    let together = shape == up.dims() && shape == output.dims();
    if !(on_host(&gate) && on_host(&up) && on_host(&output) && together) {
        return plain_gradients(activation, gate, up, output);
    }
    let (mut gate, mut up, mut output) = (numbers(gate), numbers(up), numbers(output));
    let arch = Arch::new();
    let pieces = gate.par_chunks_mut(PIECE).zip(up.par_chunks_mut(PIECE));
    pieces
        .zip(output.par_chunks_mut(PIECE))
        .for_each(|((gate, up), output)| {
            arch.dispatch(Backward {
                activation,
                gate,
                up,
                output,
            });
        });
    GatedGradients {
        product: tensor(output, shape),
        gate: tensor(gate, shape),
        up: tensor(up, shape),
    }
}

/// The same from tensor operations.
fn plain_gradients(activation: Activation, gate: Tensor<2>, up: Tensor<2>, output: Tensor<2>) -> GatedGradients {
    let share = sigmoid(argument(activation, &gate));
    let active = gate.clone() * share.clone();
    let rest = share.clone().neg().add_scalar(1.0);
    let steep = match activation {
        Activation::Silu => gate,
        Activation::GeluTanh => {
            let by_square = gate.clone().square().mul_scalar(3.0 * CUBE).add_scalar(1.0);
            gate * by_square.mul_scalar(STEEPNESS)
        }
    };
    let slope = share * (steep * rest).add_scalar(1.0);
    GatedGradients {
        product: active.clone() * up.clone(),
        gate: output.clone() * up * slope,
        up: output * active,
    }
}

/// What the sigmoid is of.
fn argument(activation: Activation, x: &Tensor<2>) -> Tensor<2> {
    match activation {
        Activation::Silu => x.clone(),
        Activation::GeluTanh => {
            let by_square = x.clone().square().mul_scalar(CUBE).add_scalar(1.0);
            x.clone() * by_square.mul_scalar(STEEPNESS)
        }
    }
}

/// A tensor's numbers, not copied if nothing else holds them. For tensors on the host, which cannot fail.
fn numbers(tensor: Tensor<2>) -> Vec<f32> {
    host_values(tensor).unwrap_or_default()
}

fn tensor(numbers: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

/// Puts `act(gate) · up` in the place of the gate.
struct Forward<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a [f32],
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = S::as_mut_simd_f32s(self.gate);
        let (ups, up_rest) = S::as_simd_f32s(self.up);
        for (gate, up) in gates.iter_mut().zip(ups) {
            *gate = product(simd, self.activation, *gate, *up);
        }
        if !gate_rest.is_empty() {
            let (gate, up) = (simd.partial_load_f32s(gate_rest), simd.partial_load_f32s(up_rest));
            simd.partial_store_f32s(gate_rest, product(simd, self.activation, gate, up));
        }
    }
}

/// Puts the gradients in the places of the gate and of the other factor, and their product in the place of its gradient.
struct Backward<'a> {
    activation: Activation,
    gate: &'a mut [f32],
    up: &'a mut [f32],
    output: &'a mut [f32],
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let (gates, gate_rest) = S::as_mut_simd_f32s(self.gate);
        let (ups, up_rest) = S::as_mut_simd_f32s(self.up);
        let (outputs, output_rest) = S::as_mut_simd_f32s(self.output);
        for ((gate, up), output) in gates.iter_mut().zip(ups).zip(outputs) {
            [*gate, *up, *output] = gradients(simd, self.activation, [*gate, *up, *output]);
        }
        if !gate_rest.is_empty() {
            let last = [
                simd.partial_load_f32s(gate_rest),
                simd.partial_load_f32s(up_rest),
                simd.partial_load_f32s(output_rest),
            ];
            let [gate, up, output] = gradients(simd, self.activation, last);
            simd.partial_store_f32s(gate_rest, gate);
            simd.partial_store_f32s(up_rest, up);
            simd.partial_store_f32s(output_rest, output);
        }
    }
}

// Functions and not closures: those are compiled for the processor's vectors only where they are inlined, which closures may not be.

#[inline(always)]
fn product<S: Simd>(simd: S, activation: Activation, gate: S::f32s, up: S::f32s) -> S::f32s {
    let [share, _] = shares(simd, activation, gate);
    simd.mul_f32s(simd.mul_f32s(gate, share), up)
}

/// Of gate, other factor and gradient at their product: the gradients of both factors, and the product.
#[inline(always)]
fn gradients<S: Simd>(simd: S, activation: Activation, [gate, up, output]: [S::f32s; 3]) -> [S::f32s; 3] {
    let one = simd.splat_f32s(1.0);
    let [share, steep] = shares(simd, activation, gate);
    let active = simd.mul_f32s(gate, share);
    // σ (1 + x z' (1 - σ))
    let slope = simd.mul_f32s(share, simd.mul_add_f32s(steep, simd.sub_f32s(one, share), one));
    [
        simd.mul_f32s(simd.mul_f32s(output, up), slope),
        simd.mul_f32s(output, active),
        simd.mul_f32s(active, up),
    ]
}

/// `σ(z)` of gates x, and `x z'`.
#[inline(always)]
fn shares<S: Simd>(simd: S, activation: Activation, x: S::f32s) -> [S::f32s; 2] {
    let (zero, one) = (simd.splat_f32s(0.0), simd.splat_f32s(1.0));
    let (z, steep) = match activation {
        Activation::Silu => (x, x),
        Activation::GeluTanh => {
            let steepness = simd.mul_f32s(x, simd.splat_f32s(STEEPNESS));
            let square = simd.mul_f32s(x, x);
            let value = simd.mul_add_f32s(square, simd.splat_f32s(CUBE), one);
            let slope = simd.mul_add_f32s(square, simd.splat_f32s(3.0 * CUBE), one);
            (simd.mul_f32s(steepness, value), simd.mul_f32s(steepness, slope))
        }
    };
    let e = exp(simd, simd.neg_f32s(simd.abs_f32s(z)));
    let larger = simd.div_f32s(one, simd.add_f32s(one, e));
    let share = simd.select_f32s(simd.less_than_f32s(z, zero), simd.mul_f32s(e, larger), larger);
    [share, steep]
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::activation::{gelu_approximate, silu};
    use proptest::prelude::*;

    /// Values and gradients of burn's own activations, by its autodiff.
    fn expected(activation: Activation, [gate, up, output]: [Tensor<2>; 3]) -> [Tensor<2>; 3] {
        let (gate, up) = (gate.autodiff().require_grad(), up.autodiff().require_grad());
        let active = match activation {
            Activation::Silu => silu(gate.clone()),
            Activation::GeluTanh => gelu_approximate(gate.clone()),
        };
        let product = active * up.clone();
        let gradients = (product.clone() * output.autodiff()).sum().backward();
        let of = |leaf: &Tensor<2>| leaf.grad(&gradients).unwrap().without_autodiff();
        [product.detach().without_autodiff(), of(&gate), of(&up)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        /// On the host and from tensor operations, in one piece and in several, far from 0 as well.
        #[test]
        fn values_and_gradients_are_burns(rows in 1usize..60, inner in 1usize..700, wide in 1.0f64..90.0, gelu: bool) {
            let activation = if gelu { Activation::GeluTanh } else { Activation::Silu };
            let random = |width: f64| Tensor::<2>::random(
                [rows, inner], burn::tensor::Distribution::Uniform(-width, width), &Device::flex(),
            );
            let inputs = [random(wide), random(2.0), random(2.0)];
            let [product, of_gate, of_up] = expected(activation, inputs.clone());
            let [gate, up, output] = inputs;
            let found = gated_gradients(activation, gate.clone(), up.clone(), output.clone());
            let plain = plain_gradients(activation, gate.clone(), up.clone(), output);
            let alone = gated(activation, gate.clone(), up.clone());
            let scale = wide as f32;
            for (found, expected) in [
                (alone, &product), (found.product, &product), (found.gate, &of_gate), (found.up, &of_up),
                (plain.product, &product), (plain.gate, &of_gate), (plain.up, &of_up),
            ] {
                let difference = (found - expected.clone()).abs().max().into_scalar::<f32>();
                prop_assert!(difference < 2e-6 * scale, "{difference}");
            }
        }
    }

    #[test]
    fn recorded_ones_stay_recorded() {
        let ones = || Tensor::<2>::ones([2, 3], &Device::flex()).autodiff();
        assert!(gated(Activation::Silu, ones(), ones()).is_autodiff());
    }
}
