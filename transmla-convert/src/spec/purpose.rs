//! What texts are for.

use std::fmt;

/// What a text is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextPurpose {
    /// To calibrate on.
    Calibration,
    /// To measure perplexities on.
    Evaluation,
}

impl fmt::Display for TextPurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Calibration => "Calibration text",
            Self::Evaluation => "Evaluation text",
        })
    }
}
