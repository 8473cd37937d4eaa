//! Perplexity of a model on the text that a conversion reports it for.

use transmla_core::{LayeredModel, TokenBatch};
use transmla_eval::{EvalOptions, Perplexity, perplexity};

use crate::spec::error::ConvertError;
use crate::spec::report::{EvaluationSteps, Observer, Stage};

/// Text to evaluate on.
#[derive(Debug, Clone, Copy)]
pub struct Evaluation<'a> {
    /// Windows `[windows, seq]`.
    pub windows: &'a TokenBatch,
    /// Batch size and memory.
    pub options: EvalOptions,
}

/// The perplexity of a model as one stage of a conversion, or nothing without text.
pub(crate) fn evaluate(
    evaluation: Option<Evaluation<'_>>,
    model: &dyn LayeredModel,
    stage: Stage,
    observer: &mut dyn Observer,
) -> Result<Option<Perplexity>, ConvertError> {
    let Some(evaluation) = evaluation else {
        return Ok(None);
    };
    observer.begin(stage);
    let mut steps = EvaluationSteps(observer);
    let result = perplexity(model, evaluation.windows, &evaluation.options, &mut steps)?;
    observer.end(stage, Some(result.perplexity));
    Ok(Some(result))
}
