//! The progress bar of an evaluation.

use transmla_eval::Observer;

use crate::bar::Bar;
use crate::printer::Printer;

struct EvaluationBar(Bar);

impl Observer for EvaluationBar {
    fn advance(&mut self, done: u64, total: u64) {
        self.0.advance(done, total);
    }
}

/// Runs an evaluation under a progress bar, which is cleared at the end.
pub fn under_bar<T>(printer: &Printer, label: &str, evaluate: impl FnOnce(&mut dyn Observer) -> T) -> T {
    evaluate(&mut EvaluationBar(printer.bar(label)))
}
