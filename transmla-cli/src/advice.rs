//! What to do about errors of conversions, where that is an option's matter.

use transmla_convert::{ConvertError, TextPurpose};
use transmla_eval::tasks::TaskError;

use crate::printer::Hint;

/// What to do where a dataset of a task cannot be had.
const OTHER_TASK_DATA: &str = "--tasks-data FOLDER reads datasets that lie there as on the hub, ORGANISATION/NAME";

/// An error with what to do about it, if that is an option's matter.
pub fn with_hint(error: ConvertError) -> anyhow::Error {
    let hint = match &error {
        ConvertError::ReadText { purpose, .. } => match purpose {
            TextPurpose::Calibration => "give another --cal-dataset (a file or folder will do) or --cal-tokens",
            TextPurpose::Evaluation => {
                "give another --eval-dataset (a file or folder will do) or --eval-tokens, or --ppl-eval-batch-size 0 for no \
                 evaluation"
            }
        },
        ConvertError::Tasks(TaskError::Text(_)) => OTHER_TASK_DATA,
        ConvertError::Tokenizer(_) => "datasets need the model's tokenizer; --cal-tokens and --eval-tokens do not",
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(Hint(hint))
}
