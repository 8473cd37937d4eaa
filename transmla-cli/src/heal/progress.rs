//! Progress of a healing on the terminal.

use std::time::Instant;

use transmla_convert::{HealCheck, HealStep, Observer, Stage, TextPurpose, Warning};

use crate::bar::Bar;
use crate::convert::stages::label;
use crate::interrupt;
use crate::printer::{GoOn, Printer};
use crate::table;

/// Shows bars, and keeps how fast the training goes.
#[derive(Debug)]
pub struct HealProgress<'a> {
    printer: &'a Printer,
    current: Option<(Bar, Instant)>,
    /// Since when steps are timed, and the tokens of those that are done since.
    timed: Option<(Instant, u64)>,
    /// Of the training, once it is done.
    pace: Option<f64>,
    /// The step that was done last.
    last: Option<HealStep>,
}

impl<'a> HealProgress<'a> {
    /// Nothing is done yet.
    pub fn new(printer: &'a Printer) -> Self {
        Self {
            printer,
            current: None,
            timed: None,
            pace: None,
            last: None,
        }
    }

    /// Tokens of the training in a second, looks at the held-out text included; nothing before it is done.
    pub fn pace(&self) -> Option<f64> {
        self.pace
    }

    fn pace_so_far(&self) -> Option<f64> {
        let (since, tokens) = self.timed?;
        (tokens > 0).then(|| tokens as f64 / since.elapsed().as_secs_f64().max(1e-9))
    }

    fn line(&mut self, text: &str) {
        if let Some((bar, _)) = &mut self.current {
            bar.line(text);
        }
    }
}

impl Observer for HealProgress<'_> {
    fn begin(&mut self, stage: Stage) {
        // A bar that is left is cleared before the next is drawn.
        self.current = None;
        self.current = Some((self.printer.bar(&label(stage)), Instant::now()));
    }

    fn advance(&mut self, done: u64, total: u64) {
        if let Some((bar, _)) = &mut self.current {
            bar.advance(done, total);
        }
    }

    fn end(&mut self, stage: Stage, _: Option<f64>) {
        let Some((bar, started)) = self.current.take() else {
            return;
        };
        drop(bar);
        let mut speed = String::new();
        if stage == Stage::Heal {
            self.pace = self.pace_so_far();
            self.timed = None;
            speed = self.pace.map_or(speed, |pace| format!(", {pace:.0} tokens/s"));
        }
        let seconds = table::seconds(started.elapsed().as_secs_f64());
        self.printer.note(format!("  {:32} {seconds}{speed}", label(stage)));
    }

    fn warning(&mut self, warning: &Warning) {
        self.printer.warn(warning);
    }

    fn text(&mut self, _: TextPurpose, sequences: usize, tokens: usize, origin: &str) {
        self.printer
            .note(format!("Text: {sequences} x {tokens} tokens of {origin}"));
    }

    fn heal_step(&mut self, step: &HealStep) {
        if let Some((_, tokens)) = &mut self.timed {
            *tokens += step.tokens as u64;
        }
        self.last = Some(*step);
        let pace = self.pace_so_far();
        if let (Some((bar, _)), Some(pace)) = (&mut self.current, pace) {
            bar.detail(format!("{:.3} nats, {pace:.0} tok/s", step.distance.kl));
        }
    }

    fn heal_check(&mut self, check: &HealCheck, best: bool) {
        let trained = match self.last.take() {
            Some(step) => format!("loss {:.4}, ", step.distance.kl),
            None => String::new(),
        };
        // What comes before the first step is not its pace.
        self.timed.get_or_insert((Instant::now(), 0));
        let mark = if best { "" } else { ", not the best" };
        self.line(&format!(
            "step {}: {trained}held out {:.4} nats from the original{mark}",
            check.done, check.distance.kl
        ));
    }

    fn heal_saved(&mut self, done: usize, steps: usize) {
        interrupt::would_go_on(Some(GoOn {
            kept: done,
            all: steps,
            unit: "step",
        }));
    }

    fn heal_resumed(&mut self, done: usize, steps: usize) {
        if let Some((bar, _)) = &mut self.current {
            bar.was_there();
        }
        self.timed = Some((Instant::now(), 0));
        self.printer
            .note(format!("  goes on behind step {done}/{steps} of an earlier run"));
        self.heal_saved(done, steps);
    }
}
