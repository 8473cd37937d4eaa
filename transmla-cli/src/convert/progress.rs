//! Progress of a conversion on the terminal, and its times.

use std::time::Instant;

use indicatif::ProgressBar;
use transmla_convert::{Observer, Report, SavedLayer, Stage, TextPurpose, Warning};

use crate::printer::Printer;
use crate::{interrupt, memory, table};

/// What a stage took.
#[derive(Debug, Clone)]
pub struct StageTime {
    /// Name in JSON.
    pub name: String,
    /// Name for people.
    pub label: String,
    /// Wall time.
    pub seconds: f64,
    /// The most memory in use up to the end of the stage.
    pub peak_bytes: Option<u64>,
}

/// Shows bars, keeps times.
#[derive(Debug)]
pub struct Progress<'a> {
    printer: &'a Printer,
    current: Option<(ProgressBar, Instant)>,
    /// Layers of an earlier run that were taken over in this stage.
    reused: usize,
    /// Whether it was said that an earlier run's layers are of no use.
    outdated: bool,
    /// The stages that are done.
    pub stages: Vec<StageTime>,
    /// What is evaluated on.
    pub evaluation_text: Option<String>,
}

impl<'a> Progress<'a> {
    /// Nothing is done yet.
    pub fn new(printer: &'a Printer) -> Self {
        Self {
            printer,
            current: None,
            reused: 0,
            outdated: false,
            stages: Vec::new(),
            evaluation_text: None,
        }
    }
}

impl Observer for Progress<'_> {
    fn begin(&mut self, stage: Stage) {
        self.current = Some((self.printer.bar(&label(stage)), Instant::now()));
    }

    fn advance(&mut self, done: u64, total: u64) {
        if let Some((bar, _)) = &self.current {
            bar.set_length(total);
            bar.set_position(done);
        }
    }

    fn warning(&mut self, warning: &Warning) {
        self.printer.warn(warning);
    }

    fn text(&mut self, purpose: TextPurpose, sequences: usize, tokens: usize, origin: &str) {
        self.printer
            .note(format!("{purpose}: {sequences} x {tokens} tokens of {origin}"));
        if purpose == TextPurpose::Evaluation {
            self.evaluation_text = Some(origin.to_owned());
        }
    }

    fn refining(&mut self, layer: usize, error: f64) {
        if let Some((bar, _)) = &self.current {
            bar.set_message(format!("Refine layer {layer}, error {:.1} %", 100.0 * error));
        }
    }

    fn saved_layer(&mut self, layer: usize, state: SavedLayer) {
        match state {
            SavedLayer::Saved => interrupt::would_go_on_at(layer + 1),
            SavedLayer::Reused => {
                interrupt::would_go_on_at(layer + 1);
                self.reused += 1;
            }
            SavedLayer::Damaged => self.printer.warn(format!(
                "layer {layer}, saved by an earlier run, is damaged; it is refined again"
            )),
            SavedLayer::Outdated if !self.outdated => {
                self.outdated = true;
                self.printer.note(format!(
                    "  from layer {layer} on, layers saved by an earlier run follow from other weights, text or options; they \
                     are refined again"
                ));
            }
            _ => {}
        }
    }

    fn converted(&mut self, _: usize, _: &Report) {
        interrupt::would_go_on_at(0);
    }

    fn end(&mut self, stage: Stage, perplexity: Option<f64>) {
        let Some((bar, started)) = self.current.take() else {
            return;
        };
        bar.finish_and_clear();
        let time = StageTime {
            name: name(stage),
            label: label(stage),
            seconds: started.elapsed().as_secs_f64(),
            peak_bytes: memory::peak_bytes(),
        };
        let result = perplexity.map_or_else(String::new, |perplexity| format!("perplexity {perplexity:.4}, "));
        self.printer
            .note(format!("  {:32} {result}{}", time.label, table::seconds(time.seconds)));
        if self.reused > 0 {
            let layers = table::plural(self.reused, "layer");
            self.printer.note(format!("  of an earlier run: {layers}"));
            self.reused = 0;
        }
        self.outdated = false;
        self.stages.push(time);
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        // A conversion that failed leaves no bar behind.
        if let Some((bar, _)) = &self.current {
            bar.finish_and_clear();
        }
    }
}

fn label(stage: Stage) -> String {
    match stage {
        Stage::EvaluateOriginal => "Evaluate the original".into(),
        Stage::Decouple => "Decouple RoPE".into(),
        Stage::TryFreqfold(fold) => format!("Try freqfold {fold}"),
        Stage::EvaluateDecoupled => "Evaluate partial RoPE".into(),
        Stage::Gradients => "Take gradients".into(),
        Stage::Compress => "Factorise and write".into(),
        Stage::EvaluateConverted => "Evaluate the MLA model".into(),
        other => format!("{other:?}"),
    }
}

fn name(stage: Stage) -> String {
    match stage {
        Stage::EvaluateOriginal => "evaluate_original".into(),
        Stage::Decouple => "decouple".into(),
        Stage::TryFreqfold(fold) => format!("try_freqfold_{fold}"),
        Stage::EvaluateDecoupled => "evaluate_partial_rope".into(),
        Stage::Gradients => "gradients".into(),
        Stage::Compress => "compress".into(),
        Stage::EvaluateConverted => "evaluate_mla".into(),
        other => format!("{other:?}").to_lowercase(),
    }
}
