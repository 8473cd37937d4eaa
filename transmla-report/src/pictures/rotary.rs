//! Which frequencies the slots of the rotary key serve.

use std::f64::consts::TAU;

use plotters::prelude::*;

use super::WIDTH;
use crate::canvas::{AFTER, Anchor, Area, Drawn, GRID, Hint, INK, Picture, RAMP, SOFT, font, px, ramp};
use crate::conversion::ConversionReport;
use crate::error::ReportError;
use crate::format::percent;

/// Where the cells are: left, top, width; and the bars beside them: left and width.
const CELLS: (f64, f64, f64) = (46.0, 62.0, 252.0);
const BARS: (f64, f64) = (314.0, 88.0);

/// Height of all rows together, at least and at most.
const HEIGHTS: (f64, f64) = (160.0, 260.0);

/// Shares below this have no cell.
const LEAST: f64 = 0.005;

/// Most labels beside the rows, and below the columns.
const LABELS: usize = 8;

/// Figures of all layers together.
struct Shares {
    /// Frequencies of the original from fast to slow.
    frequencies: Vec<f64>,
    /// Frequencies of the slots from fast to slow.
    slots: Vec<f64>,
    /// By frequency and slot, mean of the layers.
    shares: Vec<Vec<f64>>,
}

/// The picture; nothing where it is not known.
pub(crate) fn draw(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let Some(shares) = Shares::of(report) else {
        return Ok(None);
    };
    let row = (12.0 * shares.frequencies.len() as f64).clamp(HEIGHTS.0, HEIGHTS.1) / shares.frequencies.len() as f64;
    let picture = Picture {
        name: "RoPE energy by frequency and slot",
        size: (WIDTH, CELLS.1 + row * shares.frequencies.len() as f64 + 54.0),
    };
    picture.draw(|area| shares.draw(area, row)).map(Some)
}

impl Shares {
    /// The mean of the layers that have the same frequencies as the first of which any are known.
    fn of(report: &ConversionReport) -> Option<Self> {
        let mut layers = report.layers.iter().filter_map(|layer| layer.rope.as_ref());
        let first = layers.clone().next()?;
        let fits = |rows: &Vec<Vec<f64>>| {
            rows.len() == first.slots.len() && rows.iter().all(|row| row.len() == first.frequencies.len())
        };
        if first.slots.is_empty() || first.frequencies.is_empty() || !layers.all(|layer| fits(&layer.shares)) {
            return None;
        }
        let known = report.layers.iter().filter_map(|layer| layer.rope.as_ref());
        let layers: Vec<_> = known.filter(|layer| layer.frequencies == first.frequencies).collect();
        let fast_first = |values: &[f64]| {
            let mut order: Vec<usize> = (0..values.len()).collect();
            order.sort_by(|a, b| values[*b].total_cmp(&values[*a]));
            order
        };
        let (pairs, slots) = (fast_first(&first.frequencies), fast_first(&first.slots));
        let mean = |pair: usize, slot: usize| {
            let sum: f64 = layers.iter().map(|layer| layer.shares[slot][pair]).sum();
            let mean = sum / layers.len() as f64;
            if mean.is_finite() { mean.clamp(0.0, 1.0) } else { 0.0 }
        };
        Some(Self {
            shares: pairs
                .iter()
                .map(|pair| slots.iter().map(|slot| mean(*pair, *slot)).collect())
                .collect(),
            frequencies: pairs.iter().map(|pair| first.frequencies[*pair]).collect(),
            slots: slots.iter().map(|slot| first.slots[*slot]).collect(),
        })
    }

    fn draw(&self, area: &Area<'_>, row: f64) -> Drawn<Vec<Hint>> {
        let (left, top, width) = CELLS;
        let column = width / self.slots.len() as f64;
        let bottom = top + row * self.frequencies.len() as f64;
        let mut hints = Vec::new();
        for (index, shares) in self.shares.iter().enumerate() {
            let y = top + row * index as f64;
            let ground = [(px(left), px(y)), (px(left + width), px(y + row))];
            area.draw(&Rectangle::new(ground, GRID.stroke_width(px(0.5).unsigned_abs())))?;
            for (slot, share) in shares.iter().enumerate().filter(|(_, share)| **share >= LEAST) {
                let x = left + column * slot as f64;
                let cell = [(px(x), px(y)), (px(x + column), px(y + row))];
                area.draw(&Rectangle::new(cell, ramp(*share).filled()))?;
            }
            let sum = shares.iter().sum::<f64>().min(1.0);
            let bar = [
                (px(BARS.0), px(y + 0.12 * row)),
                (px(BARS.0 + BARS.1 * sum), px(y + 0.88 * row)),
            ];
            area.draw(&Rectangle::new(bar, AFTER.filled()))?;
            let period = period(self.frequencies[index]);
            hints.push(Hint {
                place: (px(BARS.0 + BARS.1 / 2.0), px(y + row / 2.0)),
                text: format!("one turn in {period} tokens: {} in the rotary key", percent(sum)),
            });
        }
        self.label(area, (row, column), bottom)?;
        legend(area)?;
        Ok(hints)
    }

    fn label(&self, area: &Area<'_>, (row, column): (f64, f64), bottom: f64) -> Drawn<()> {
        let (left, top, width) = CELLS;
        for index in some(self.frequencies.len()) {
            let place = (px(left - 7.0), px(top + row * (index as f64 + 0.5)));
            area.draw_text(&period(self.frequencies[index]), &font(11.0, SOFT, Anchor::End), place)?;
        }
        for index in some(self.slots.len()) {
            let place = (px(left + column * (index as f64 + 0.5)), px(bottom + 13.0));
            area.draw_text(&period(self.slots[index]), &font(11.0, SOFT, Anchor::Middle), place)?;
        }
        for (share, text) in [(0.0, "0"), (1.0, "100 %")] {
            let place = (px(BARS.0 + BARS.1 * share), px(bottom + 13.0));
            area.draw_text(text, &font(11.0, SOFT, Anchor::Middle), place)?;
        }
        let start = font(12.0, INK, Anchor::Start);
        let middle = font(12.0, INK, Anchor::Middle);
        area.draw_text("Key pair (tokens per turn)", &start, (px(8.0), px(top - 14.0)))?;
        area.draw_text(
            "Slot (tokens per turn)",
            &middle,
            (px(left + width / 2.0), px(bottom + 36.0)),
        )?;
        area.draw_text("All slots", &middle, (px(BARS.0 + BARS.1 / 2.0), px(bottom + 36.0)))
    }
}

/// The ramp, above the picture.
fn legend(area: &Area<'_>) -> Drawn<()> {
    let heading = font(12.0, SOFT, Anchor::Start);
    area.draw_text("Share of the pair's energy", &heading, (px(8.0), px(14.0)))?;
    let left = 196.0;
    let text = |text: &str, x: f64, anchor| area.draw_text(text, &font(11.0, SOFT, anchor), (px(x), px(14.0)));
    text("0 %", left - 6.0, Anchor::End)?;
    for (index, colour) in RAMP.iter().enumerate() {
        let start = left + 18.0 * index as f64;
        let corners = [(px(start), px(9.0)), (px(start + 18.0), px(19.0))];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    text("100 %", left + 18.0 * RAMP.len() as f64 + 6.0, Anchor::Start)
}

/// Tokens of a whole turn.
fn period(frequency: f64) -> String {
    let tokens = TAU / frequency.abs();
    match tokens {
        t if !t.is_finite() => "∞".into(),
        t if t < 999.5 => short(t),
        t if t < 999_500.0 => format!("{}k", short(t / 1e3)),
        t => format!("{}M", short(t / 1e6)),
    }
}

/// A number of at most three digits.
fn short(value: f64) -> String {
    let decimals = usize::from(value < 9.95);
    format!("{value:.decimals$}")
}

/// Indices at equal distances.
fn some(count: usize) -> impl Iterator<Item = usize> {
    (0..count).step_by(count.div_ceil(LABELS).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods_are_short() {
        let texts = [1.0, 0.1, 0.001, 1e-6, 0.0].map(period);
        assert_eq!(texts, ["6.3", "63", "6.3k", "6.3M", "∞"]);
        assert_eq!(some(16).collect::<Vec<_>>(), [0, 2, 4, 6, 8, 10, 12, 14]);
        assert_eq!(some(3).count(), 3);
    }
}
