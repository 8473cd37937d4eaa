//! The options of every conversion, whatever the widths.

use clap::Args;
use transmla_convert::Recipe;

use super::calibration::CalibrationArguments;
use super::evaluation::EvaluationArguments;
use super::form::FormArguments;

/// What `convert` and `sweep` have in common.
#[derive(Debug, Args)]
pub struct ConversionArguments {
    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    calibration: CalibrationArguments,

    #[command(flatten)]
    evaluation: EvaluationArguments,
}

impl ConversionArguments {
    /// Sets the fields whose options are given.
    pub fn apply(&self, recipe: &mut Recipe) {
        self.form.apply(recipe);
        self.calibration.apply(recipe);
        self.evaluation.apply(recipe);
    }
}
