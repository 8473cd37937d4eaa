//! Cache and perplexity of one conversion, before and after.

use plotters::prelude::*;

use super::WIDTH;
use crate::canvas::{AFTER, Anchor, Area, BEFORE, Drawn, INK, Picture, RAMP, SOFT, bold, font, px};
use crate::conversion::ConversionReport;
use crate::error::ReportError;
use crate::format::{change, count, percent, three_digits};

const NAME: &str = "Cache and perplexity";

/// Height of a heading and of a row, and where bars start and end.
const HEADING: f64 = 32.0;
const ROW: f64 = 36.0;
const BARS: (f64, f64) = (98.0, 300.0);

/// Bars under a heading.
struct Group {
    heading: &'static str,
    bars: Vec<Bar>,
}

struct Bar {
    label: &'static str,
    value: f64,
    text: String,
    colour: RGBColor,
}

/// The picture; nothing where no perplexity is known.
pub(crate) fn draw(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let groups = groups(report);
    if groups.len() < 2 {
        return Ok(None);
    }
    let rows: usize = groups.iter().map(|group| group.bars.len()).sum();
    let height = rows as f64 * ROW + groups.len() as f64 * (HEADING + 12.0);
    let picture = Picture {
        name: NAME,
        size: (WIDTH, height),
    };
    picture
        .draw(|area| {
            let mut top = 4.0;
            for group in &groups {
                top = group.draw(area, top)? + 12.0;
            }
            Ok(Vec::new())
        })
        .map(Some)
}

fn groups(report: &ConversionReport) -> Vec<Group> {
    let (before, after) = (report.original, report.converted);
    let mut groups = Vec::new();
    if before.cache > 0 {
        let share = after.cache as f64 / before.cache as f64;
        groups.push(Group {
            heading: "KV numbers per token and layer",
            bars: vec![
                Bar {
                    label: "original",
                    value: before.cache as f64,
                    text: count(before.cache),
                    colour: BEFORE,
                },
                Bar {
                    label: "converted",
                    value: after.cache as f64,
                    text: format!("{}  ({})", count(after.cache), percent(share)),
                    colour: AFTER,
                },
            ],
        });
    }
    let known = |it: &f64| it.is_finite() && *it > 0.0;
    let original = before.perplexity.filter(known);
    let bar = |label, perplexity: Option<f64>, colour| {
        let value = perplexity.filter(known)?;
        let text = match original.filter(|_| label != "original") {
            Some(original) => format!("{}  ({})", three_digits(value), change(original, value)),
            None => three_digits(value),
        };
        Some(Bar {
            label,
            value,
            text,
            colour,
        })
    };
    let bars = [
        bar("original", original, BEFORE),
        bar("partial RoPE", report.partial_rope, RAMP[1]),
        bar("converted", after.perplexity, AFTER),
    ];
    let bars: Vec<Bar> = bars.into_iter().flatten().collect();
    if !bars.is_empty() {
        groups.push(Group {
            heading: "Perplexity (lower is better)",
            bars,
        });
    }
    groups
}

impl Group {
    /// Draws the group from a height on; gives where it ends.
    fn draw(&self, area: &Area<'_>, top: f64) -> Drawn<f64> {
        area.draw_text(
            self.heading,
            &bold(13.0, INK, Anchor::Start),
            (px(8.0), px(top + HEADING / 2.0)),
        )?;
        let most = self.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        let mut middle = top + HEADING + ROW / 2.0;
        for bar in &self.bars {
            let end = BARS.0 + (BARS.1 - BARS.0) * bar.value / most;
            let corners = [(px(BARS.0), px(middle - 13.0)), (px(end), px(middle + 13.0))];
            area.draw(&Rectangle::new(corners, bar.colour.filled()))?;
            area.draw_text(
                bar.label,
                &font(12.0, SOFT, Anchor::End),
                (px(BARS.0 - 10.0), px(middle)),
            )?;
            area.draw_text(&bar.text, &font(13.0, INK, Anchor::Start), (px(end + 8.0), px(middle)))?;
            middle += ROW;
        }
        Ok(middle - ROW / 2.0)
    }
}
