//! Progress of a conversion on the terminal, and its times.

use std::time::Instant;

use transmla_convert::{
    Finished, LayerFigures, LayerReport, Observer, Report, SavedLayer, Stage, TextPurpose, Warning,
};
use transmla_report::Sample;

use super::estimate::Estimate;
use super::page::{Origin, PAGE};
use super::samples::samples;
use super::stages::{ReadText, StageTime, label, name, part};
use crate::bar::Bar;
use crate::printer::{GoOn, Printer};
use crate::{interrupt, memory, table};

/// A stage that is under way.
#[derive(Debug)]
struct Current {
    bar: Bar,
    started: Instant,
    layer: Option<CurrentLayer>,
}

/// The layer that a stage is at.
#[derive(Debug)]
struct CurrentLayer {
    layer: usize,
    layers: usize,
    started: Instant,
    /// Whether an earlier run has solved it.
    reused: bool,
    /// What was measured.
    found: Vec<String>,
}

/// Shows bars, keeps times.
#[derive(Debug)]
pub struct Progress<'a> {
    printer: &'a Printer,
    current: Option<Current>,
    /// What goes on between stages.
    between: Option<Bar>,
    /// Layers that an earlier run has saved from the same start.
    saved: usize,
    /// Whether the same command would go on, should this one be ended.
    resumes: bool,
    /// Layers of an earlier run that were taken over in this stage.
    reused: usize,
    /// The stages that are done.
    pub stages: Vec<StageTime>,
    /// How long everything takes, where that was estimated.
    pub estimate: Option<Estimate>,
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
            between: None,
            saved: 0,
            resumes: true,
            reused: 0,
            stages: Vec::new(),
            estimate: None,
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

    /// The same for what would start anew, should it be ended.
    pub fn without_resuming(mut self) -> Self {
        self.resumes = false;
        self
    }

    /// So many layers that an earlier run has saved will be taken over.
    pub fn expect(&mut self, saved: usize, layers: usize) {
        self.saved = saved;
        self.keep(saved, layers);
    }

    /// So many layers are kept, should the command be ended.
    fn keep(&self, kept: usize, layers: usize) {
        self.keep_units("layer", kept, layers);
    }

    /// So many parts of a stage before them are.
    fn keep_part(&self, stage: Stage, done: u64, total: u64) {
        self.keep_units(part(stage), done as usize, total as usize);
    }

    fn keep_units(&self, unit: &'static str, kept: usize, all: usize) {
        if self.resumes {
            interrupt::would_go_on((kept > 0).then_some(GoOn { kept, all, unit }));
        }
    }

    /// Tells of the layer that is done, where no bar shows it.
    fn end_layer(&mut self) {
        let Some(current) = &mut self.current else { return };
        let Some(done) = current.layer.take() else { return };
        let mut said = vec![format!("layer {}/{}", done.layer + 1, done.layers)];
        said.push(match done.reused {
            true => "of an earlier run".to_owned(),
            false => table::seconds(done.started.elapsed().as_secs_f64()),
        });
        said.extend(done.found);
        current.bar.line(&said.join(", "));
    }

    /// What both models write; a conversion that is done does not fail for it.
    fn write_samples(&mut self, finished: &Finished<'_>) {
        let bar = self.printer.wait("Write sample texts");
        let written = samples(finished);
        drop(bar);
        match written {
            Ok(samples) => self.samples = samples,
            Err(error) => self.printer.warn(format!("no sample text: {error}")),
        }
    }
}

impl Observer for Progress<'_> {
    fn begin(&mut self, stage: Stage) {
        // A bar that is left is cleared before the next is drawn.
        (self.current, self.between) = (None, None);
        self.current = Some(Current {
            bar: self.printer.bar(&label(stage)),
            started: Instant::now(),
            layer: None,
        });
    }

    fn advance(&mut self, done: u64, total: u64) {
        if let Some(current) = &mut self.current {
            current.bar.advance(done, total);
        }
    }

    fn layer(&mut self, layer: usize, layers: usize) {
        self.end_layer();
        if let Some(current) = &mut self.current {
            current.bar.layer(layer, layers);
            current.layer = Some(CurrentLayer {
                layer,
                layers,
                started: Instant::now(),
                reused: false,
                found: Vec::new(),
            });
        }
    }

    fn layer_done(&mut self, _: usize, report: &LayerReport) {
        if let Some(layer) = self.current.as_mut().and_then(|current| current.layer.as_mut()) {
            layer.found.push(describe_layer(report));
        }
    }

    fn found_layers(&mut self, _: usize, saved: usize, layers: usize) {
        self.expect(saved, layers);
        self.printer.note(match saved {
            0 => "  layers of an earlier run follow from other weights, text or options; they are solved again"
                .to_owned(),
            all if all >= layers => format!("  all {layers} layers of an earlier run are taken over"),
            some => format!(
                "  goes on at layer {}/{layers}: {} of an earlier run are taken over",
                some + 1,
                table::plural(some, "layer")
            ),
        });
    }

    fn warning(&mut self, warning: &Warning) {
        self.printer.warn(warning);
    }

    fn text(&mut self, purpose: TextPurpose, sequences: usize, tokens: usize, origin: &str) {
        self.printer
            .note(format!("{purpose}: {sequences} x {tokens} tokens of {origin}"));
        if purpose == TextPurpose::Evaluation {
            self.evaluation_text = Some(origin.to_owned());
            let known = self
                .estimate
                .as_ref()
                .and_then(|estimate| estimate.with_windows(sequences));
            known.iter().for_each(|time| self.printer.note(format!("Time: {time}")));
        }
        self.texts.push(ReadText {
            purpose,
            sequences,
            tokens,
            origin: origin.to_owned(),
        });
    }

    fn saved_layer(&mut self, layer: usize, state: SavedLayer) {
        let current = self
            .current
            .as_mut()
            .and_then(|current| Some((&mut current.bar, current.layer.as_mut()?)));
        let Some((bar, current)) = current else { return };
        let (number, layers) = (layer + 1, current.layers);
        match state {
            SavedLayer::Saved => self.keep(self.saved.max(number), layers),
            SavedLayer::Reused => {
                bar.was_there();
                current.reused = true;
                self.reused += 1;
                self.keep(self.saved.max(number), layers);
            }
            SavedLayer::Damaged => {
                self.keep(layer, layers);
                self.printer.warn(format!(
                    "layer {number}/{layers}, saved by an earlier run, is damaged; it is solved again"
                ));
            }
            SavedLayer::Outdated => {
                self.saved = 0;
                self.keep(layer, layers);
            }
            _ => {}
        }
    }

    fn saved_part(&mut self, stage: Stage, done: u64, total: u64) {
        // Layers come after everything that they follow from.
        if self.saved == 0 {
            self.keep_part(stage, done, total);
        }
    }

    fn resumed(&mut self, stage: Stage, done: u64, total: u64) {
        if done < total {
            self.printer
                .note(format!("  goes on at {} {}/{total}", part(stage), done + 1));
        } else {
            let all = table::plural(total as usize, part(stage));
            self.printer
                .note(format!("  all {all} of an earlier run are taken over"));
        }
        if let Some(current) = &mut self.current {
            current.bar.was_there();
        }
        self.saved_part(stage, done, total);
    }

    fn solved(&mut self, _: usize, figures: &LayerFigures) {
        if self.page.is_some() {
            self.figures.push(figures.clone());
        }
    }

    fn finished(&mut self, finished: &Finished<'_>) -> Vec<(String, Vec<u8>)> {
        self.between = None;
        if self.sampled {
            self.write_samples(finished);
        }
        // What is left is one file for llama.cpp, if that is wanted, and moving everything into place.
        self.between = Some(self.printer.wait("Write the files"));
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
        self.between = None;
        // What stands is not made again by the same command.
        self.keep(0, 0);
        self.resumes = false;
    }

    fn end(&mut self, stage: Stage, perplexity: Option<f64>) {
        self.end_layer();
        let Some(Current { bar, started, .. }) = self.current.take() else {
            return;
        };
        drop(bar);
        let time = StageTime {
            name: name(stage),
            label: label(stage),
            seconds: started.elapsed().as_secs_f64(),
            peak_bytes: memory::peak_bytes(),
        };
        let result = perplexity.map_or_else(String::new, |perplexity| format!("perplexity {perplexity:.4}, "));
        self.printer
            .note(format!("  {:32} {result}{}", time.label, table::seconds(time.seconds)));
        if let Some(peak) = time.peak_bytes {
            self.printer
                .detail(format!("  {:32} at most {} of memory so far", "", table::bytes(peak)));
        }
        if self.reused > 0 {
            let layers = table::plural(self.reused, "layer");
            self.printer.note(format!("  of an earlier run: {layers}"));
            self.reused = 0;
        }
        self.stages.push(time);
        if stage == Stage::Compress {
            self.between = Some(self.printer.wait("Write the other weights"));
        }
    }
}

/// What was measured at a layer, for people.
fn describe_layer(report: &LayerReport) -> String {
    match report.stream_error {
        Some(error) => format!("hidden states {} off the original's", percent(error)),
        None => format!("latent keeps {} of the energy", percent(report.kept_energy)),
    }
}

fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_described_by_what_is_known() {
        let mut report = LayerReport {
            layer: 0,
            balance_ratio: 1.0,
            kept_energy: 0.987,
            key_error: None,
            output_error: Some(0.985),
            stream_error: Some(0.0412),
        };
        assert_eq!(describe_layer(&report), "hidden states 4.1 % off the original's");
        report.stream_error = None;
        assert_eq!(describe_layer(&report), "latent keeps 98.7 % of the energy");
    }
}
