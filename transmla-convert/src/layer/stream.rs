//! Calibration text through a model, layer by layer.

use burn::tensor::Tensor;
use transmla_calib::SecondMoment;
use transmla_core::config::LayerRopes;
use transmla_core::model::{LayerRotary, Rotary};
use transmla_core::{CoreError, DecoderLayer, LayeredModel, TokenBatch, host_values};

use crate::spec::error::ConvertError;

/// The residual stream of the calibration text in front of one layer.
///
/// One hidden state per token is all that is kept; everything else lives for one batch.
pub struct CalibrationStream {
    states: Vec<Tensor<3>>,
    rotary: LayerRotary,
    constant: bool,
    layer: usize,
}

impl CalibrationStream {
    /// Embeds the text. With `constant`, moments have one more dimension that is always 1, for models with biases.
    ///
    /// # Errors
    /// A token outside the vocabulary, or an embedding that cannot be read.
    pub fn new(
        model: &dyn LayeredModel,
        tokens: &TokenBatch,
        batch_size: usize,
        constant: bool,
    ) -> Result<Self, CoreError> {
        Self::with_rope(model, &model.config().rope, tokens, batch_size, constant)
    }

    /// As [`Self::new`], for layers that will rotate by other frequencies than the model's own.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_rope(
        model: &dyn LayeredModel,
        rope: &LayerRopes,
        tokens: &TokenBatch,
        batch_size: usize,
        constant: bool,
    ) -> Result<Self, CoreError> {
        let batch_size = batch_size.max(1);
        let states = (0..tokens.batch())
            .step_by(batch_size)
            .filter_map(|start| tokens.rows(start..start + batch_size))
            .map(|batch| model.embed(&batch))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            states,
            rotary: LayerRotary::new(rope, 0..tokens.sequence(), model.device()),
            constant,
            layer: 0,
        })
    }

    /// Number of batches that each visit goes through.
    pub fn batches(&self) -> usize {
        self.states.len()
    }

    /// The positions that the layer behind this point rotates by.
    pub fn rotary(&self) -> &Rotary {
        self.rotary.of(self.layer)
    }

    /// What the attention of `layer` sees of one batch, `[rows, hidden]`, and the number of its sequences.
    pub fn input(&self, batch: usize, layer: &DecoderLayer) -> (Tensor<2>, usize) {
        let state = &self.states[batch];
        (layer.attention_input(state.clone()), state.dims()[0])
    }

    /// The residual stream of one batch in front of the layer, `[rows, hidden]`.
    pub fn state(&self, batch: usize) -> Tensor<2> {
        self.states[batch].clone().flatten(0, 1)
    }

    /// Second moment of what the attention of `layer` sees.
    ///
    /// # Errors
    /// The device fails, or the inputs are not finite.
    pub fn moment(&self, layer: &DecoderLayer) -> Result<SecondMoment, ConvertError> {
        let width = self.states.first().map_or(0, |state| state.dims()[2]);
        let mut moment = SecondMoment::new(width, self.constant);
        for state in &self.states {
            moment.add(&layer.attention_input(state.clone()))?;
        }
        match moment.is_finite() {
            true => Ok(moment),
            false => Err(ConvertError::Activations { layer: self.layer }),
        }
    }

    /// Shows `visit` what the attention of `layer` sees, `[rows, hidden]` for each batch.
    ///
    /// # Errors
    /// Those of `visit`.
    pub fn inputs(
        &self,
        layer: &DecoderLayer,
        visit: &mut dyn FnMut(Tensor<2>) -> Result<(), CoreError>,
    ) -> Result<(), CoreError> {
        self.states
            .iter()
            .try_for_each(|state| visit(layer.attention_input(state.clone())))
    }

    /// Takes the text through `layer`; `step` is called once for each batch.
    ///
    /// # Errors
    /// The device fails, or an expert cannot be read.
    pub fn advance(&mut self, layer: &DecoderLayer, step: &mut dyn FnMut()) -> Result<(), CoreError> {
        let rotary = self.rotary.of(self.layer);
        let mut attend = |_, hidden| Ok(layer.attend(hidden, rotary, None));
        layer.forward_each(&mut self.states, &mut attend, step)?;
        self.layer += 1;
        Ok(())
    }
}

/// The number in a tensor of one.
pub(crate) fn scalar(tensor: Tensor<1>) -> Result<f64, CoreError> {
    Ok(host_values(tensor)?.into_iter().map(f64::from).sum())
}
