//! What the attention output of a layer notices: distance profiles, weighted query moments, value weights.

use burn::tensor::activation::softmax;
use burn::tensor::{Bool, Tensor, TensorData};
use faer::Mat;
use transmla_core::CoreError;
use transmla_core::model::Rotary;
use transmla_core::model::attention::GroupedAttention;

/// First-order sensitivity of a layer's attention output, accumulated over sequences.
///
/// With g_t the gradient of the loss with respect to the layer's attention output at token t, a change of the score of
/// head h between query t and key u costs `a_h(t,u) = p_h(t,u)² · (g_t · W_O,h (v_g(u) - o_h(t)))²`, p being the attention
/// probability and o the head's output; a change δ of a value costs `p_h(t,u)² (g_t · W_O,h δ)²`. The first token of a
/// sequence serves as attention sink: it sits at distance t everywhere and would drown the profile of ordinary tokens,
/// so it is left out of the scores.
///
/// What is kept does not grow with the number of sequences: per head a profile as long as a sequence and two `d × d`
/// moments.
#[derive(Debug, Clone)]
pub struct Sensitivity {
    heads: usize,
    profile: Vec<Vec<f64>>,
    query_moment: Vec<Mat<f64>>,
    value_metric: Vec<Mat<f64>>,
    tokens: u64,
}

impl Sensitivity {
    /// Nothing seen yet, for `heads` query heads of width `head_dim` and sequences of a length.
    pub fn new(heads: usize, head_dim: usize, sequence: usize) -> Self {
        Self {
            heads,
            profile: vec![vec![0.0; sequence]; heads],
            query_moment: vec![Mat::zeros(head_dim, head_dim); heads],
            value_metric: vec![Mat::zeros(head_dim, head_dim); heads],
            tokens: 0,
        }
    }

    /// Adds the sequences `[batch·seq, hidden]`, one at a time; the score matrices of one are all that is held.
    ///
    /// # Errors
    /// [`CoreError::Execution`] if the device fails; [`CoreError::Shape`] for sequences of another length.
    pub fn add(
        &mut self,
        attention: &GroupedAttention,
        inputs: &Tensor<2>,
        gradients: &Tensor<2>,
        batch: usize,
        rotary: &Rotary,
    ) -> Result<(), CoreError> {
        let [rows, hidden] = inputs.dims();
        let sequence = self.profile.first().map_or(0, Vec::len);
        if rows != batch * sequence || gradients.dims() != inputs.dims() || attention.query_heads != self.heads {
            return Err(CoreError::Shape {
                name: "inputs of the sensitivity statistics".into(),
                expected: vec![batch * sequence, hidden],
                found: vec![rows, hidden],
            });
        }
        for index in 0..batch {
            let part = |all: &Tensor<2>| all.clone().narrow(0, index * sequence, sequence);
            self.add_sequence(attention, part(inputs), part(gradients), rotary)?;
        }
        Ok(())
    }

    fn add_sequence(
        &mut self,
        attention: &GroupedAttention,
        x: Tensor<2>,
        gradients: Tensor<2>,
        rotary: &Rotary,
    ) -> Result<(), CoreError> {
        let sequence = x.dims()[0];
        let shared = self.heads / attention.key_heads;
        let split = |y: Tensor<2>, heads: usize| -> Tensor<3> {
            let width = y.dims()[1] / heads;
            y.reshape([sequence, heads, width]).swap_dims(0, 1)
        };
        let repeat = |y: Tensor<3>| -> Tensor<3> {
            let [groups, _, width] = y.dims();
            y.unsqueeze_dim::<4>(1)
                .expand([groups, shared, sequence, width])
                .reshape([self.heads, sequence, width])
        };
        let rotate = |y: Tensor<3>| rotary.apply(y.unsqueeze_dim(0)).squeeze_dim::<3>(0);
        let q = split(attention.q.forward(x.clone()), self.heads); // [H, T, d]
        let k = split(attention.k.forward(x.clone()), attention.key_heads);
        let v = repeat(split(attention.v.forward(x), attention.key_heads));
        let scale = (q.dims()[2] as f64).powf(-0.5);
        let scores = rotate(q.clone())
            .matmul(repeat(rotate(k)).swap_dims(1, 2))
            .mul_scalar(scale);
        let future = Tensor::<2, Bool>::tril_mask([sequence, sequence], 0, &scores.device());
        let future = future.unsqueeze::<3>().expand([self.heads, sequence, sequence]);
        let p = softmax(scores.mask_fill(future, f32::NEG_INFINITY), 2); // [H, T, T]
        let o = p.clone().matmul(v.clone());
        // r = W_O,hᵀ g: the gradient at each head's output.
        let r = split(gradients.matmul(attention.o.weight.clone()), self.heads); // [H, T, d]
        let own = (r.clone() * o).sum_dim(2); // [H, T, 1]
        let gap = (r.clone().matmul(v.swap_dims(1, 2)) - own).square();
        let weight = p.clone().square();
        let a = zero_first_key(weight.clone() * gap);
        let per_query = a.clone().sum_dim(2); // [H, T, 1]
        add_moments(&mut self.query_moment, q.clone() * per_query, q)?;
        add_moments(&mut self.value_metric, r.clone() * weight.sum_dim(2), r)?;
        let a = host(a)?;
        for (profile, rows) in self.profile.iter_mut().zip(a.chunks_exact(sequence * sequence)) {
            for (t, row) in rows.chunks_exact(sequence).enumerate() {
                for (value, sum) in row[..=t].iter().rev().zip(profile.iter_mut()) {
                    *sum += f64::from(*value);
                }
            }
        }
        self.tokens += sequence as u64;
        Ok(())
    }

    /// Share of each distance in a head's sensitivity, `[H][distance]`, summing to 1 per head.
    pub fn profiles(&self) -> Vec<Vec<f64>> {
        let normalise = |profile: &Vec<f64>| {
            let sum: f64 = profile.iter().sum();
            match sum > 0.0 {
                true => profile.iter().map(|value| value / sum).collect(),
                // A head that notices nothing may be taken to look at itself.
                false => (0..profile.len()).map(|distance| f64::from(distance == 0)).collect(),
            }
        };
        self.profile.iter().map(normalise).collect()
    }

    /// Second moment of each head's queries before RoPE, weighted by sensitivity, per token: H times `[d, d]`.
    pub fn query_moments(&self) -> Vec<Mat<f64>> {
        let per_token = faer::Scale(1.0 / self.tokens.max(1) as f64);
        self.query_moment.iter().map(|moment| per_token * moment).collect()
    }

    /// What an error of a head's values costs, per token: H times `[d, d]`.
    pub fn value_metrics(&self) -> Vec<Mat<f64>> {
        let per_token = faer::Scale(1.0 / self.tokens.max(1) as f64);
        self.value_metric.iter().map(|metric| per_token * metric).collect()
    }
}

/// Adds `leftᵀ right` of each head, both `[H, T, d]`.
fn add_moments(sums: &mut [Mat<f64>], left: Tensor<3>, right: Tensor<3>) -> Result<(), CoreError> {
    let width = right.dims()[2];
    let moments = host(left.swap_dims(1, 2).matmul(right))?; // [H, d, d]
    for (sum, values) in sums.iter_mut().zip(moments.chunks_exact(width * width)) {
        // Symmetric, so rows serve as columns.
        for (column, values) in values.chunks_exact(width).enumerate() {
            let target = sum.col_as_slice_mut(column);
            target.iter_mut().zip(values).for_each(|(t, v)| *t += f64::from(*v));
        }
    }
    Ok(())
}

fn zero_first_key(a: Tensor<3>) -> Tensor<3> {
    let sequence = a.dims()[2];
    let keep: Vec<f32> = (0..sequence).map(|u| f32::from(u8::from(u > 0))).collect();
    let keep = Tensor::<1>::from_data(TensorData::new(keep, [sequence]), &a.device());
    a * keep.unsqueeze()
}

fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, CoreError> {
    let failed = |error: String| CoreError::Execution(error);
    let data = tensor.try_into_data().map_err(|error| failed(error.to_string()))?;
    data.try_into_vec::<f32>().map_err(|error| failed(error.to_string()))
}
