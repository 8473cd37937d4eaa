//! A batch of text through a model: forwards for its loss, and backwards for the gradients of what is trained.

use burn::tensor::Tensor;
use transmla_core::model::{LayerRotary, LossSums, LossWeights};
use transmla_core::{CoreError, LayeredModel};

use crate::heal::forward::{Batch, last_state, states};
use crate::heal::student::Student;
use crate::heal::teacher::Teacher;
use crate::spec::healing::Healing;
use crate::spec::healing_report::Distance;

/// Gradients by layer and projection.
pub(crate) type Gradients = Vec<Vec<Tensor<2>>>;

/// The loss of a batch, and the gradients of its share of the mean over `sequences` sequences, added to those of others.
///
/// The residual stream in front of every layer is held, and each layer computed once more on the way back.
pub(crate) fn add_gradients(
    student: &Student<'_>,
    teacher: &Teacher<'_>,
    batch: Batch<'_>,
    (healing, sequences): (&Healing, usize),
    sums: &mut Option<Gradients>,
) -> Result<LossSums, CoreError> {
    let tokens = batch.tokens()?;
    let rotary = LayerRotary::new(&student.config().rope, 0..tokens.sequence(), student.device());
    let mut states = states(student, &tokens, &rotary)?;
    let given = teacher.of(batch, &tokens)?;
    let rows = (sequences * tokens.sequence()) as f64;
    let weights = LossWeights {
        kl: healing.kl_weight / rows,
        cross_entropy: healing.ce_weight / (rows - sequences as f64).max(1.0),
    };
    let last = states.pop().map(|state| state.flatten::<2>(0, 1));
    let Some(last) = last else {
        return Ok(LossSums::default());
    };
    let head = student.head()?;
    let (loss, mut gradient) = head.loss_gradient(&last, given.rows(), &batch.next(), weights)?;
    let mut found = Vec::with_capacity(states.len());
    while let Some(state) = states.pop() {
        let index = states.len();
        let layer = student.layer(index)?;
        let gradients = layer.gradients(student.which(), state, rotary.of(index), gradient)?;
        gradient = gradients.hidden;
        found.push(gradients.projections);
    }
    found.reverse();
    *sums = Some(match sums.take() {
        None => found,
        Some(before) => before.into_iter().zip(found).map(|(a, b)| add(a, b)).collect(),
    });
    Ok(loss)
}

fn add(a: Vec<Tensor<2>>, b: Vec<Tensor<2>>) -> Vec<Tensor<2>> {
    a.into_iter().zip(b).map(|(a, b)| a + b).collect()
}

/// How far a model is from the teacher and from the text on some sequences, so many at a time.
pub(crate) fn distance(
    model: &dyn LayeredModel,
    teacher: &Teacher<'_>,
    batch: Batch<'_>,
    at_once: usize,
    done: &mut dyn FnMut(usize),
) -> Result<Distance, CoreError> {
    let head = model.head()?;
    let mut sums = LossSums::default();
    for rows in batch.rows.chunks(at_once.max(1)) {
        let part = Batch { rows, ..batch };
        let tokens = part.tokens()?;
        let last = last_state(model, &tokens)?;
        let given = teacher.of(part, &tokens)?;
        sums = sums.and(head.loss(&last, given.rows(), &part.next())?);
        done(rows.len());
    }
    Ok(Distance::from(sums))
}
