//! Perplexity and accuracy of a model on what a conversion reports them for.

use transmla_core::{LayeredModel, TokenBatch};
use transmla_eval::tasks::{PreparedTasks, TaskScores};
use transmla_eval::{EvalOptions, Perplexity, ScoringOptions, perplexity};

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

/// Questions with known answers.
#[derive(Debug, Clone, Copy)]
pub struct Questions<'a> {
    /// What is asked.
    pub tasks: &'a PreparedTasks,
    /// Batches and memory.
    pub options: ScoringOptions,
}

/// The answers of a model as one stage of a conversion, or nothing without questions.
pub(crate) fn ask(
    questions: Option<Questions<'_>>,
    model: &dyn LayeredModel,
    stage: Stage,
    observer: &mut dyn Observer,
) -> Result<Option<TaskScores>, ConvertError> {
    let Some(Questions { tasks, options }) = questions else {
        return Ok(None);
    };
    observer.begin(stage);
    let scores = tasks.score(model, &options, &mut EvaluationSteps(observer))?;
    observer.end(stage, None);
    Ok(Some(scores))
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
