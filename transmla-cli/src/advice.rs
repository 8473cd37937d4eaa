//! What to do about errors of conversions, where that is an option's matter.

use transmla_convert::{ConvertError, TextPurpose};

use crate::printer::Hint;

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
        ConvertError::Tokenizer(_) => "datasets need the model's tokenizer; --cal-tokens and --eval-tokens do not",
        _ => return error.into(),
    };
    anyhow::Error::new(error).context(Hint(hint))
}
