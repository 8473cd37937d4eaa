//! The progress of one thing that takes its time: a bar on a terminal, lines elsewhere.

use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

use crate::messages::{self, Kind};
use crate::pace::{Pace, left_text};

/// Columns of what is behind the message: bar, percentage, clock, time left.
const FIGURES: usize = 44;

/// Columns of the message on a terminal of 80.
const MESSAGE: usize = 36;

/// Columns of the message's first part.
const LABEL: usize = 23;

/// How often the clock is drawn.
const TICK: Duration = Duration::from_millis(200);

/// How often a line is written where no bar is seen.
const LINES: Duration = Duration::from_secs(60);

/// What the numbers of a bar count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Work of any kind: the share that is done is shown.
    Work,
    /// Bytes, which are shown.
    Bytes,
    /// Nothing: how much there is to do is not known, only the clock is shown.
    Unknown,
}

/// Progress of one thing; gone when it is dropped.
#[derive(Debug)]
pub struct Bar {
    label: String,
    /// Behind the label: `layer 3/30`.
    detail: String,
    drawn: ProgressBar,
    pace: Arc<Mutex<Pace>>,
    started: Instant,
    /// When a line was last written.
    said: Instant,
    /// Whether it goes by layers, which time is then told by.
    layered: bool,
}

impl Bar {
    /// Nothing is done yet. The label must not steer a terminal.
    pub fn new(label: String, unit: Unit) -> Self {
        let (pace, started) = (Arc::new(Mutex::new(Pace::default())), Instant::now());
        let shown = messages::shows_bars();
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let drawn = ProgressBar::with_draw_target(None, target).with_style(style(unit, Arc::clone(&pace), started));
        let bar = Self {
            label,
            detail: String::new(),
            drawn,
            pace,
            started,
            said: started,
            layered: false,
        };
        bar.draw_message();
        if shown {
            messages::draw(&bar.drawn);
            bar.drawn.enable_steady_tick(TICK);
        }
        bar
    }

    /// So much of the work is done.
    pub fn advance(&mut self, done: u64, total: u64) {
        self.drawn.set_length(total);
        self.drawn.set_position(done);
        let share = done as f64 / total.max(1) as f64;
        if !self.layered {
            let now = self.seconds();
            self.pace().mark(now, share);
        }
        if self.said.elapsed() >= LINES {
            let detail = match self.detail.is_empty() {
                true => String::new(),
                false => format!("{}, ", self.detail),
            };
            let left = self.pace().left(self.seconds());
            let left = left.map_or_else(String::new, |left| format!(", {}", left_text(left)));
            self.line(&format!("{detail}{:.0} %{left}", 100.0 * share));
        }
    }

    /// One more unit of so many is done.
    pub fn step(&mut self, total: u64) {
        self.advance(self.drawn.position() + 1, total);
    }

    /// Work on a layer, by its index, begins.
    pub fn layer(&mut self, layer: usize, layers: usize) {
        self.layered = true;
        let now = self.seconds();
        self.pace().mark(now, layer as f64 / layers.max(1) as f64);
        self.detail = format!("layer {}/{layers}", layer + 1);
        self.draw_message();
    }

    /// What is shown behind the label.
    pub fn detail(&mut self, detail: String) {
        self.detail = detail;
        self.draw_message();
    }

    /// What was done so far was there already, and says nothing about the time that the rest takes.
    pub fn was_there(&mut self) {
        self.pace().forget();
    }

    /// Writes a line about it where no bar is seen.
    pub fn line(&mut self, text: &str) {
        self.said = Instant::now();
        messages::say(Kind::Step, &format!("  {:LABEL$} {text}", self.label));
    }

    fn draw_message(&self) {
        let columns = messages::bar_columns()
            .saturating_sub(FIGURES)
            .clamp(LABEL / 2, MESSAGE);
        let message = match self.detail.is_empty() {
            true => self.label.clone(),
            false => format!("{:LABEL$} {}", self.label, self.detail),
        };
        self.drawn
            .set_message(format!("{:columns$}", messages::shortened(&message, columns)));
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn seconds(&self) -> f64 {
        self.started.elapsed().as_secs_f64()
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if self.drawn.is_hidden() {
            self.drawn.finish_and_clear();
        } else {
            messages::clear_bar();
        }
    }
}

fn style(unit: Unit, pace: Arc<Mutex<Pace>>, started: Instant) -> ProgressStyle {
    let template = match unit {
        Unit::Work => "{msg} {bar:10.cyan/blue} {percent:>3} % {clock:>8}  {left}",
        Unit::Bytes => "{msg} {bar:10.cyan/blue} {bytes:>10} {percent:>3} %  {left}",
        Unit::Unknown => "{msg} {spinner:.cyan} {clock:>24}",
    };
    let left = move |_: &ProgressState, out: &mut dyn Write| {
        let pace = pace.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(left) = pace.left(started.elapsed().as_secs_f64()) {
            let _ = out.write_str(&left_text(left));
        }
    };
    let clock = |state: &ProgressState, out: &mut dyn Write| {
        let _ = out.write_str(&clock_text(state.elapsed().as_secs()));
    };
    // The template is fixed; were it wrong, the default style would do.
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    style.with_key("left", left).with_key("clock", clock)
}

/// `3:05`, `1:02:03`.
fn clock_text(seconds: u64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    match hours {
        0 => format!("{minutes}:{seconds:02}"),
        _ => format!("{hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks() {
        assert_eq!(clock_text(5), "0:05");
        assert_eq!(clock_text(185), "3:05");
        assert_eq!(clock_text(3723), "1:02:03");
    }

    /// The longest figures of a bar, below a terminal's last column.
    #[test]
    fn figures_fit_beside_the_message() {
        let bar = " ██████████ 100 %  1:02:03  ";
        let longest = bar.chars().count() + left_text(86_400.0 + 59.0 * 60.0).chars().count();
        assert!(MESSAGE + longest <= 80 && longest <= FIGURES, "{longest}");
    }
}
