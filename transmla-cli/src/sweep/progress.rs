//! Progress of a sweep on the terminal.

use std::collections::BTreeMap;

use transmla_convert::{LayerReport, Observer, Report, SavedLayer, Stage, TextPurpose, Warning};

use crate::convert::progress::Progress;
use crate::printer::Printer;

/// The progress of a sweep: that of each conversion, and the model that it is of.
pub struct SweepProgress<'a> {
    printer: &'a Printer,
    pub stages: Progress<'a>,
    /// Curve and widths of each model.
    names: Vec<(String, String)>,
    /// Models that an earlier run has left layers for: how many are of use, and how many there are.
    found: BTreeMap<usize, (usize, usize)>,
}

impl<'a> SweepProgress<'a> {
    /// Nothing is done yet; `names` are the curve and the widths of each model. Models that are not kept leave nothing to go on
    /// with.
    pub fn new(printer: &'a Printer, names: Vec<(String, String)>, kept: bool) -> Self {
        let stages = Progress::new(printer);
        Self {
            printer,
            stages: match kept {
                true => stages,
                false => stages.without_resuming(),
            },
            names,
            found: BTreeMap::new(),
        }
    }
}

impl Observer for SweepProgress<'_> {
    fn begin(&mut self, stage: Stage) {
        self.stages.begin(stage);
    }

    fn advance(&mut self, done: u64, total: u64) {
        self.stages.advance(done, total);
    }

    fn warning(&mut self, warning: &Warning) {
        self.stages.warning(warning);
    }

    fn text(&mut self, purpose: TextPurpose, sequences: usize, tokens: usize, origin: &str) {
        self.stages.text(purpose, sequences, tokens, origin);
    }

    fn layer(&mut self, layer: usize, layers: usize) {
        self.stages.layer(layer, layers);
    }

    fn layer_done(&mut self, model: usize, report: &LayerReport) {
        self.stages.layer_done(model, report);
    }

    fn found_layers(&mut self, model: usize, saved: usize, layers: usize) {
        if self.found.is_empty() {
            self.stages.expect(saved, layers);
        }
        self.found.insert(model, (saved, layers));
    }

    fn saved_layer(&mut self, layer: usize, state: SavedLayer) {
        self.stages.saved_layer(layer, state);
    }

    fn saved_part(&mut self, stage: Stage, done: u64, total: u64) {
        self.stages.saved_part(stage, done, total);
    }

    fn resumed(&mut self, stage: Stage, done: u64, total: u64) {
        self.stages.resumed(stage, done, total);
    }

    fn end(&mut self, stage: Stage, perplexity: Option<f64>) {
        self.stages.end(stage, perplexity);
    }

    fn converting(&mut self, models: &[usize]) {
        let curve = models.first().map_or("", |first| &self.names[*first].0);
        let widths: Vec<&str> = models.iter().map(|index| self.names[*index].1.as_str()).collect();
        self.printer.note(format!("{curve} at {}", widths.join(", ")));
        match models.first().and_then(|first| Some((*first, self.found.get(first)?))) {
            Some((model, &(saved, layers))) => self.stages.found_layers(model, saved, layers),
            None => self.stages.expect(0, 0),
        }
    }

    fn converted(&mut self, model: usize, report: &Report) {
        self.stages.converted(model, report);
        if let Some(measured) = report.mla {
            let (curve, widths) = &self.names[model];
            let perplexity = measured.perplexity;
            self.printer
                .note(format!("  {curve} at {widths} has perplexity {perplexity:.4}"));
        }
    }
}
