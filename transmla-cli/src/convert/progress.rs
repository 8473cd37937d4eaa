//! Progress of a conversion on the terminal, and its times.

use std::time::Instant;

use indicatif::ProgressBar;
use transmla_convert::{Finished, LayerFigures, Observer, Report, SavedLayer, Stage, TextPurpose, Warning};
use transmla_report::Sample;

use super::page::{Origin, PAGE};
use super::samples::samples;
use super::stages::{ReadText, StageTime, label, name};
use crate::printer::Printer;
use crate::{interrupt, memory, table};

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
    /// The texts that were read.
    pub texts: Vec<ReadText>,
    /// What both models wrote.
    pub samples: Vec<Sample>,
    /// How layers were solved.
    figures: Vec<LayerFigures>,
    /// What a page is made from, if one is wanted.
    page: Option<Origin<'a>>,
    /// Whether finished models write samples.
    sampled: bool,
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
            texts: Vec::new(),
            samples: Vec::new(),
            figures: Vec::new(),
            page: None,
            sampled: false,
        }
    }

    /// The same for one conversion, whose model writes samples, if somebody reads them, and gets a page, if one is wanted.
    pub fn with_page(mut self, page: Option<Origin<'a>>) -> Self {
        self.sampled = page.is_some() || self.printer.is_text();
        self.page = page;
        self
    }

    /// What both models write; a conversion that is done does not fail for it.
    fn write_samples(&mut self, finished: &Finished<'_>) {
        let bar = self.printer.bar("Write sample texts");
        let written = samples(finished);
        bar.finish_and_clear();
        match written {
            Ok(samples) => self.samples = samples,
            Err(error) => self.printer.warn(format!("no sample text: {error}")),
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
        self.texts.push(ReadText {
            purpose,
            sequences,
            tokens,
            origin: origin.to_owned(),
        });
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

    fn solved(&mut self, _: usize, figures: &LayerFigures) {
        if self.page.is_some() {
            self.figures.push(figures.clone());
        }
    }

    fn finished(&mut self, finished: &Finished<'_>) -> Vec<(String, Vec<u8>)> {
        if self.sampled {
            self.write_samples(finished);
        }
        let Some(origin) = &self.page else {
            return Vec::new();
        };
        match origin.page(finished, &self.figures, &self.stages, &self.texts, self.samples.clone()) {
            Ok(page) => vec![(PAGE.to_owned(), page.into_bytes())],
            Err(error) => {
                self.printer.warn(format!("no {PAGE}: {error}"));
                Vec::new()
            }
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
