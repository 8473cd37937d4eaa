//! The progress bar of an evaluation.

use indicatif::ProgressBar;
use transmla_eval::Observer;

use crate::printer::Printer;

struct EvaluationBar(ProgressBar);

impl Observer for EvaluationBar {
    fn advance(&mut self, done: u64, total: u64) {
        self.0.set_length(total);
        self.0.set_position(done);
    }
}

/// Runs an evaluation under a progress bar, which is cleared at the end.
pub fn under_bar<T>(printer: &Printer, label: &str, evaluate: impl FnOnce(&mut dyn Observer) -> T) -> T {
    let mut bar = EvaluationBar(printer.bar(label));
    let result = evaluate(&mut bar);
    bar.0.finish_and_clear();
    result
}
