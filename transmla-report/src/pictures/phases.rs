//! Time and memory of each phase.

use plotters::prelude::*;

use super::WIDTH;
use crate::canvas::{AFTER, Anchor, Area, Drawn, INK, Picture, RAMP, SOFT, bold, font, px};
use crate::conversion::{ConversionReport, Phase};
use crate::error::ReportError;
use crate::format::{bytes, seconds, shorten};

const HEADING: f64 = 34.0;
const ROW: f64 = 28.0;

/// Where labels end and bars start, and the most pixels of a bar of time and of one of memory.
const LABELS: f64 = 146.0;
const TIME: (f64, f64) = (153.0, 62.0);
const MEMORY: (f64, f64) = (300.0, 66.0);

/// Most characters of a phase's name.
const NAME: usize = 24;

/// The picture; nothing where no phase is known.
pub(crate) fn draw(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let phases = &report.phases;
    if phases.is_empty() {
        return Ok(None);
    }
    let picture = Picture {
        name: "Time and memory by phase",
        size: (WIDTH, HEADING + ROW * phases.len() as f64 + 6.0),
    };
    let most = |values: &mut dyn Iterator<Item = f64>| values.fold(f64::MIN_POSITIVE, f64::max);
    let most_seconds = most(&mut phases.iter().map(|phase| phase.seconds));
    let most_bytes = most(&mut phases.iter().filter_map(|phase| Some(phase.peak_bytes? as f64)));
    let draw = |area: &Area<'_>| {
        let heading = bold(12.0, INK, Anchor::Start);
        area.draw_text("Time", &heading, (px(TIME.0), px(HEADING / 2.0)))?;
        if phases.iter().any(|phase| phase.peak_bytes.is_some()) {
            area.draw_text("Peak memory", &heading, (px(MEMORY.0), px(HEADING / 2.0)))?;
        }
        for (
            index,
            Phase {
                name,
                seconds: time,
                peak_bytes,
            },
        ) in phases.iter().enumerate()
        {
            let middle = HEADING + ROW * (index as f64 + 0.5);
            let label = shorten(&crate::html::one_line(name), NAME);
            area.draw_text(&label, &font(12.0, SOFT, Anchor::End), (px(LABELS), px(middle)))?;
            bar(area, TIME, time / most_seconds, middle, AFTER, &seconds(*time))?;
            if let Some(peak) = peak_bytes {
                bar(area, MEMORY, *peak as f64 / most_bytes, middle, RAMP[1], &bytes(*peak))?;
            }
        }
        Ok(Vec::new())
    };
    picture.draw(draw).map(Some)
}

fn bar(area: &Area<'_>, (left, width): (f64, f64), share: f64, middle: f64, colour: RGBColor, text: &str) -> Drawn<()> {
    let end = left + (width * share).max(1.0);
    let corners = [(px(left), px(middle - 8.0)), (px(end), px(middle + 8.0))];
    area.draw(&Rectangle::new(corners, colour.filled()))?;
    area.draw_text(text, &font(12.0, INK, Anchor::Start), (px(end + 6.0), px(middle)))
}
