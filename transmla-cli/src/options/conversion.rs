//! The options of every conversion, whatever the widths.

use clap::Args;
use transmla_convert::Recipe;

use super::calibration::CalibrationArguments;
use super::evaluation::EvaluationArguments;
use super::form::FormArguments;
use super::tasks::RecipeTaskArguments;

/// What `convert` and `sweep` have in common.
#[derive(Debug, Args)]
pub struct ConversionArguments {
    #[command(flatten)]
    form: FormArguments,

    #[command(flatten)]
    calibration: CalibrationArguments,

    #[command(flatten)]
    evaluation: EvaluationArguments,

    #[command(flatten)]
    tasks: RecipeTaskArguments,
}

impl ConversionArguments {
    /// Sets the fields whose options are given.
    ///
    /// # Errors
    /// An option is for something that there is not.
    pub fn apply(&self, recipe: &mut Recipe) -> anyhow::Result<()> {
        self.form.apply(recipe);
        self.calibration.apply(recipe);
        self.evaluation.apply(recipe);
        self.tasks.apply(&mut recipe.tasks)
    }
}
