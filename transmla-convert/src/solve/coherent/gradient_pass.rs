//! Gradients of the loss at every layer's attention output, taken layer by layer and kept as they are taken.
//!
//! On the way forwards the residual stream behind each layer is kept, on the way backwards it is given up for the layer's
//! gradients, so that neither is ever in memory for more than one layer. Each part follows from the text alone: a run that was
//! ended goes on with the parts that are there.

use burn::tensor::{Device, Tensor, TensorData};
use half::bf16;
use transmla_calib::GradientPass;
use transmla_core::{CoreError, Decoder, LayeredModel, TokenBatch, host_values};

use crate::solve::kept::{Kept, keep_tensor, kept_tensor, pack, unpack};
use crate::spec::error::ConvertError;
use crate::spec::report::{Observer, Stage};

/// What is kept of each batch at a layer.
#[derive(Debug, Clone, Copy)]
enum Part {
    /// The residual stream in front of it, in f32.
    State,
    /// The gradient with respect to that.
    Behind,
    /// The gradient with respect to the attention's output, in half the bytes: statistics are sums over thousands of them.
    Output,
}

impl Part {
    fn name(self, layer: usize, batch: usize) -> String {
        let kind = match self {
            Self::State => "state",
            Self::Behind => "behind",
            Self::Output => "output",
        };
        format!("{kind}-{layer:05}-{batch:05}")
    }
}

/// The gradients of a layer in one batch, `[batch·seq, hidden]`, from where they are kept.
///
/// # Errors
/// They are not what was kept.
pub(super) fn kept_gradients(
    kept: &dyn Kept,
    (layer, batch): (usize, usize),
    shape: [usize; 2],
    device: &Device,
) -> Result<Tensor<2>, ConvertError> {
    let part = Part::Output.name(layer, batch);
    let read = kept.read(&part).and_then(|bytes| gradients_of(&bytes, shape, device));
    read.ok_or_else(|| kept.lost(&part))
}

fn gradient_bytes(gradients: Tensor<2>) -> Result<Vec<u8>, CoreError> {
    Ok(pack(host_values(gradients)?.into_iter().map(bf16::from_f32)))
}

fn gradients_of(bytes: &[u8], shape: [usize; 2], device: &Device) -> Option<Tensor<2>> {
    let values: Vec<f32> = unpack(bytes, shape[0] * shape[1])?.map(bf16::to_f32).collect();
    Some(Tensor::from_data(TensorData::new(values, shape), device))
}

/// Takes those that are not kept yet of some batches, each with its index.
///
/// # Errors
/// The model cannot be read, the device fails, or there is no room for what is to be kept.
pub(super) fn take_gradients(
    source: &Decoder,
    batches: &[(usize, TokenBatch)],
    kept: &mut dyn Kept,
    observer: &mut dyn Observer,
) -> Result<(), ConvertError> {
    let Some((_, first)) = batches.first() else {
        return Ok(());
    };
    let layers = source.config().num_hidden_layers;
    let mut taking = Taking {
        source,
        batches,
        kept,
        pass: GradientPass::new(source, first.sequence()),
        total: 2 * layers as u64 + 1,
    };
    observer.begin(Stage::Gradients);
    let reached = taking.reached();
    if taking.done(&reached) > 0 {
        observer.resumed(Stage::Gradients, taking.done(&reached), taking.total);
    }
    match reached {
        Reached::Ended => {}
        Reached::Backwards(layer, gradients) => taking.backwards(layer, gradients, observer)?,
        Reached::Forwards(layer, states) => {
            let gradients = taking.forwards(layer, states, observer)?;
            taking.backwards(layers, gradients, observer)?;
        }
    }
    observer.advance(taking.total, taking.total);
    observer.end(Stage::Gradients, None);
    Ok(())
}

/// How far gradients are taken.
enum Reached {
    /// The residual stream in front of this layer, by batch.
    Forwards(usize, Vec<Tensor<3>>),
    /// The gradient with respect to the residual stream in front of this layer, by batch; everything behind it is kept.
    Backwards(usize, Vec<Tensor<2>>),
    /// All are.
    Ended,
}

struct Taking<'a> {
    source: &'a Decoder,
    batches: &'a [(usize, TokenBatch)],
    kept: &'a mut dyn Kept,
    pass: GradientPass,
    /// Layers that are gone through, forwards and backwards, with the loss in between.
    total: u64,
}

impl Taking<'_> {
    fn layers(&self) -> usize {
        self.source.config().num_hidden_layers
    }

    fn done(&self, reached: &Reached) -> u64 {
        match reached {
            Reached::Forwards(layer, _) => *layer as u64,
            Reached::Backwards(layer, _) => self.total - *layer as u64,
            Reached::Ended => self.total,
        }
    }

    /// `[batch, seq, hidden]` of a batch's states.
    fn shape(&self, tokens: &TokenBatch) -> [usize; 3] {
        [tokens.batch(), tokens.sequence(), self.source.config().hidden_size]
    }

    fn state(&self, layer: usize, (index, tokens): &(usize, TokenBatch)) -> Option<Tensor<3>> {
        let part = Part::State.name(layer, *index);
        kept_tensor(&*self.kept, &part, self.shape(tokens), self.source.device())
    }

    fn behind(&self, layer: usize) -> Option<Vec<Tensor<2>>> {
        let of = |(index, tokens): &(usize, TokenBatch)| {
            let [batch, sequence, hidden] = self.shape(tokens);
            let part = Part::Behind.name(layer, *index);
            kept_tensor(&*self.kept, &part, [batch * sequence, hidden], self.source.device())
        };
        self.batches.iter().map(of).collect()
    }

    fn has_gradients(&self, layer: usize) -> bool {
        self.batches.iter().all(|(index, tokens)| {
            let [batch, sequence, hidden] = self.shape(tokens);
            let bytes = self.kept.read(&Part::Output.name(layer, *index));
            bytes.is_some_and(|bytes| bytes.len() == batch * sequence * hidden * size_of::<bf16>())
        })
    }

    fn has_states(&self, layer: usize) -> bool {
        self.batches.iter().all(|batch| self.state(layer, batch).is_some())
    }

    /// What is kept, as far as it is whole.
    fn reached(&self) -> Reached {
        let layers = self.layers();
        // From the last layer on.
        let taken = (0..layers).rev().take_while(|layer| self.has_gradients(*layer)).count();
        if taken == layers {
            return Reached::Ended;
        }
        let next = layers - taken;
        if let Some(gradients) = self.behind(next)
            && (1..next).all(|layer| self.has_states(layer))
        {
            return Reached::Backwards(next, gradients);
        }
        let states = |layer| self.batches.iter().map(|batch| self.state(layer, batch)).collect();
        let mut last = (0, Vec::new());
        for layer in 1..=layers {
            match states(layer) {
                Some(found) => last = (layer, found),
                None => break,
            }
        }
        Reached::Forwards(last.0, last.1)
    }

    fn step(&self, done: u64, observer: &mut dyn Observer) {
        observer.saved_part(Stage::Gradients, done, self.total);
        observer.advance(done, self.total);
    }

    /// From in front of a layer to the loss; gives its gradients with respect to the residual stream behind the last layer.
    fn forwards(
        &mut self,
        start: usize,
        mut states: Vec<Tensor<3>>,
        observer: &mut dyn Observer,
    ) -> Result<Vec<Tensor<2>>, ConvertError> {
        if start == 0 {
            states = self
                .batches
                .iter()
                .map(|(_, tokens)| self.source.embed(tokens))
                .collect::<Result<_, _>>()?;
        }
        let layers = self.layers();
        for index in start..layers {
            let layer = self.source.layer(index)?;
            for (state, (batch, _)) in states.iter_mut().zip(self.batches) {
                *state = self.pass.forward(&layer, index, state.clone())?;
                keep_tensor(self.kept, &Part::State.name(index + 1, *batch), state.clone())?;
            }
            self.step(index as u64 + 1, observer);
        }
        let head = self.pass.head()?;
        let mut gradients = Vec::with_capacity(states.len());
        for (state, (batch, tokens)) in states.into_iter().zip(self.batches) {
            let gradient = self.pass.at_the_loss(&head, state, tokens)?;
            keep_tensor(self.kept, &Part::Behind.name(layers, *batch), gradient.clone())?;
            gradients.push(gradient);
        }
        self.remove(&[(Part::State, layers)])?;
        self.step(layers as u64 + 1, observer);
        Ok(gradients)
    }

    /// From in front of a layer, or behind the last, to the first.
    fn backwards(
        &mut self,
        start: usize,
        mut gradients: Vec<Tensor<2>>,
        observer: &mut dyn Observer,
    ) -> Result<(), ConvertError> {
        for index in (0..start).rev() {
            let layer = self.pass.layer(index)?;
            for (gradient, at) in gradients.iter_mut().zip(self.batches) {
                let (batch, tokens) = at;
                let state = match index {
                    0 => self.source.embed(tokens)?,
                    _ => {
                        let state = self.state(index, at);
                        state.ok_or_else(|| self.kept.lost(&Part::State.name(index, *batch)))?
                    }
                };
                let found = self.pass.backward(&layer, index, state, gradient.clone())?;
                *gradient = found.input;
                // The last that is needed comes last: a layer whose gradients are kept is done.
                if index > 0 {
                    keep_tensor(self.kept, &Part::Behind.name(index, *batch), gradient.clone())?;
                }
                self.kept
                    .write(&Part::Output.name(index, *batch), gradient_bytes(found.output)?)?;
            }
            self.remove(&[(Part::Behind, index + 1), (Part::State, index)])?;
            self.step(self.total - index as u64, observer);
        }
        Ok(())
    }

    /// Gives up what no layer needs any more.
    fn remove(&mut self, parts: &[(Part, usize)]) -> Result<(), ConvertError> {
        for (part, layer) in parts {
            for (batch, _) in self.batches {
                self.kept.remove(&part.name(*layer, *batch))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gradients_are_kept_to_three_digits() {
        let device = Device::flex();
        let values: Vec<f32> = (0..6).map(|i| 1e-6 * 10f32.powi(i) * 1.2345).collect();
        let gradients = Tensor::<2>::from_data(TensorData::new(values.clone(), [2, 3]), &device);
        let kept = gradients_of(&gradient_bytes(gradients).unwrap(), [2, 3], &device).unwrap();
        assert_eq!(kept.dims(), [2, 3]);
        for (found, expected) in host_values(kept).unwrap().into_iter().zip(values) {
            assert!((found / expected - 1.0).abs() < 4e-3, "{found} {expected}");
        }
    }
}
