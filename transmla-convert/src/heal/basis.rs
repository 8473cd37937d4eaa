//! Coordinates that AdamW is good at: the eigenvectors of what a projection multiplies.
//!
//! Adam takes coordinates for independent, and inputs of attention are anything but: a few directions of the residual stream
//! have most of its power. In the eigenbasis of their second moment coordinates are independent (the one-sided form of SOAP,
//! arXiv 2409.11321, with a basis that is known before the first step).

use burn::tensor::Tensor;
use faer::Side;
use transmla_calib::SecondMoment;
use transmla_core::kernels::attend;
use transmla_core::model::LayerRotary;
use transmla_core::model::attention::Attention;
use transmla_core::{CoreError, LayeredModel};

use crate::heal::forward::Batch;
use crate::heal::student::Student;
use crate::layer::weights::to_linear;

/// Sequences that the moments are taken of.
const SEQUENCES: usize = 8;

/// Projections of the normalised residual stream in front of attention.
const READ_THE_INPUT: [&str; 4] = ["q_proj", "q_a_proj", "k_proj", "kv_a_proj_with_mqa"];

/// Gives the weights of a student's attention, before the first step, the bases of what they multiply on some sequences.
///
/// # Errors
/// A layer cannot be read, the device fails, or activations are not finite.
pub(crate) fn set_bases(student: &mut Student<'_>, batch: Batch<'_>, at_once: usize) -> Result<(), CoreError> {
    let rows = &batch.rows[..batch.rows.len().min(SEQUENCES)];
    let rotary = LayerRotary::new(&student.config().rope, 0..batch.text.sequence(), student.device());
    let parts: Vec<_> = rows.chunks(at_once.max(1)).collect();
    let mut states = parts
        .iter()
        .map(|rows| student.embed(&Batch { rows, ..batch }.tokens()?))
        .collect::<Result<Vec<_>, CoreError>>()?;
    for index in 0..student.config().num_hidden_layers {
        let layer = student.layer(index)?;
        let mut moments: Option<[SecondMoment; 2]> = None;
        for state in &mut states {
            let count = state.dims()[0];
            let input = layer.attention_input(state.clone());
            let attended = attended(&layer.attention, input.clone(), count, &rotary, index);
            let widths = [input.dims()[1], attended.dims()[1]];
            let [of_input, of_attended] =
                moments.get_or_insert_with(|| widths.map(|width| SecondMoment::new(width, false)));
            of_input.add(&input)?;
            of_attended.add(&attended)?;
            *state = layer.forward_from_input(state.clone(), input, rotary.of(index), None)?;
        }
        let Some(moments) = moments else { continue };
        let [of_input, of_attended] = moments;
        let (of_input, of_attended) = (basis(&of_input, student)?, basis(&of_attended, student)?);
        for weights in &mut student.weights[index] {
            let name = weights.projection();
            if READ_THE_INPUT.contains(&name) {
                weights.turn(of_input.clone());
            } else if name == "o_proj" {
                weights.turn(of_attended.clone());
            }
        }
    }
    Ok(())
}

/// What `o_proj` multiplies, `[batch·seq, H·d_v]`.
fn attended(attention: &Attention, input: Tensor<2>, batch: usize, rotary: &LayerRotary, layer: usize) -> Tensor<2> {
    let projected = attention.project(input, batch, rotary.of(layer));
    let attended = attend(projected.q, projected.k, projected.v, attention.parameters());
    let [batch, heads, sequence, value] = attended.dims();
    attended.swap_dims(1, 2).reshape([batch * sequence, heads * value])
}

/// The eigenvectors of a moment, as rows.
fn basis(moment: &SecondMoment, student: &Student<'_>) -> Result<Tensor<2>, CoreError> {
    let eigen = match moment.is_finite() {
        true => moment.matrix().self_adjoint_eigen(Side::Lower).ok(),
        false => None,
    };
    let eigen = eigen.ok_or(CoreError::NonFiniteLogits)?;
    let vectors = eigen.U().transpose();
    Ok(to_linear(vectors, vectors.ncols(), student.device()).weight)
}
