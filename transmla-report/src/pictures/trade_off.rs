//! Perplexity by size of the cache.
//!
//! A colour for each method, a marker for each width of the rotary key; points of one colour and marker are joined.

use plotters::prelude::*;

use crate::axis::{self, Axis};
use crate::canvas::{
    Anchor, Area, COLOURS, Chart, Drawn, Frame, Hint, INK, PAPER, Picture, SOFT, bold, dashed, font, line, px, stroke,
};
use crate::error::ReportError;
use crate::format::{shorten, three_digits};
use crate::html::one_line;
use crate::labels::{self, Label};
use crate::sweep::{SweepCurve, SweepPoint, SweepReport};

/// Most characters of the lines above a picture that is a file of its own.
const TITLE: usize = 80;
const LINE: usize = 110;

/// Height of an entry of the legend.
const ENTRY: f64 = 23.0;

/// Where things are.
struct Layout {
    size: (f64, f64),
    margins: (f64, f64, f64, f64),
    /// Whether model and text are named above.
    headings: bool,
    /// Upper left corner of the legend.
    legend: (f64, f64),
    /// How much of it stands beside the rest.
    legend_columns: usize,
}

/// A file of its own.
pub(crate) fn file(report: &SweepReport) -> Result<String, ReportError> {
    let layout = Layout {
        size: (920.0, 560.0),
        margins: (78.0, 112.0, 220.0, 74.0),
        headings: true,
        legend: (728.0, 112.0),
        legend_columns: 1,
    };
    Ok(format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{}",
        draw(report, &layout)?
    ))
}

/// On a page that is wide enough.
pub(crate) fn wide(report: &SweepReport) -> Result<String, ReportError> {
    let layout = Layout {
        size: (1040.0, 470.0),
        margins: (70.0, 34.0, 220.0, 74.0),
        headings: false,
        legend: (844.0, 40.0),
        legend_columns: 1,
    };
    draw(report, &layout)
}

/// On a phone.
pub(crate) fn narrow(report: &SweepReport) -> Result<String, ReportError> {
    let entries = Points::of(report).entries().max(1);
    let rows = entries.div_ceil(2) as f64;
    let layout = Layout {
        size: (400.0, 396.0 + ENTRY * rows),
        margins: (46.0, 34.0, 14.0, 92.0 + ENTRY * rows),
        headings: false,
        legend: (14.0, 388.0),
        legend_columns: 2,
    };
    draw(report, &layout)
}

/// What can be drawn.
struct Points<'a> {
    report: &'a SweepReport,
    original: Option<f64>,
    /// Widths of the rotary key, from wide to narrow: each has a marker.
    rope_dims: Vec<usize>,
}

impl<'a> Points<'a> {
    fn of(report: &'a SweepReport) -> Self {
        let all = report.curves.iter().flat_map(|curve| &curve.points);
        let mut rope_dims: Vec<usize> = all.filter(|it| drawn(&it.perplexity)).map(|it| it.rope_dim).collect();
        rope_dims.sort_unstable_by(|a, b| b.cmp(a));
        rope_dims.dedup();
        Self {
            report,
            original: report.original.perplexity.filter(drawn),
            rope_dims,
        }
    }

    /// The points of one curve and width, from small to large.
    fn joined(&self, curve: &SweepCurve, rope_dim: usize) -> Vec<SweepPoint> {
        let fits = |point: &&SweepPoint| point.rope_dim == rope_dim && drawn(&point.perplexity);
        let mut points: Vec<SweepPoint> = curve.points.iter().filter(fits).cloned().collect();
        points.sort_by_key(|point| point.cache);
        points
    }

    fn axes(&self) -> (Axis, Axis) {
        let all = || self.report.curves.iter().flat_map(|curve| &curve.points);
        let known = all().map(|point| point.perplexity).filter(drawn).chain(self.original);
        let (low, high) = known.fold((f64::INFINITY, 0.0f64), |(low, high), p| (low.min(p), high.max(p)));
        // A margin of a tenth of the range, and of 2 % at least.
        let margin = (high / low).powf(0.1).max(1.02);
        let range = match low.is_finite() {
            true => (low / margin, high * margin),
            false => (1.0, 10.0),
        };
        let caches = all().map(|point| point.cache).chain([self.report.original.cache, 1]);
        let most = caches.max().unwrap_or(1);
        (
            Axis::linear(0.0, 1.04 * most as f64),
            Axis::logarithmic(range.0, range.1),
        )
    }

    /// Lines of the legend.
    fn entries(&self) -> usize {
        usize::from(self.original.is_some()) + self.report.curves.len() + self.rope_dims.len()
    }
}

fn drawn(perplexity: &f64) -> bool {
    perplexity.is_finite() && *perplexity > 0.0
}

fn draw(report: &SweepReport, layout: &Layout) -> Result<String, ReportError> {
    let points = Points::of(report);
    let picture = Picture {
        name: "Perplexity by size of the KV cache",
        size: layout.size,
    };
    picture.draw(|area| {
        if layout.headings {
            headings(area, report)?;
        }
        let (x, y) = points.axes();
        let frame = Frame {
            margins: layout.margins,
            x,
            y,
            x_title: "",
            y_title: "Perplexity (logarithmic)",
            x_label: &|cache| axis::label(*cache),
            y_label: &|perplexity| axis::label(*perplexity),
        };
        let mut chart = frame.chart(area)?;
        shares(area, &chart, &x, report, layout)?;
        let mut marks = Marks::default();
        marks.original(area, &mut chart, &points)?;
        for (index, curve) in report.curves.iter().enumerate() {
            for (marker, rope_dim) in points.rope_dims.iter().enumerate() {
                let joined = points.joined(curve, *rope_dim);
                let style = (COLOURS[index % COLOURS.len()], marker);
                marks.curve(area, &mut chart, &curve.label, &joined, style)?;
            }
        }
        legend(area, &points, layout)?;
        marks.draw(area, layout.size.0)
    })
}

fn headings(area: &Area<'_>, report: &SweepReport) -> Drawn<()> {
    area.fill(&PAPER)?;
    let title = format!("Perplexity by size of the KV cache: {}", one_line(&report.model));
    let title = shorten(&title, TITLE);
    area.draw_text(&title, &bold(18.0, INK, Anchor::Start), (px(8.0), px(32.0)))?;
    let text = shorten(&format!("on {}", one_line(&report.evaluation)), LINE);
    area.draw_text(&text, &font(13.0, SOFT, Anchor::Start), (px(8.0), px(58.0)))
}

/// Shares of the original's cache below the ticks, and the name of the axis.
fn shares(area: &Area<'_>, chart: &Chart<'_, '_>, x: &Axis, report: &SweepReport, layout: &Layout) -> Drawn<()> {
    let (left, _, right, bottom) = layout.margins;
    let base = layout.size.1 - bottom;
    let (_, y) = chart.backend_coord(&(0.0, chart.y_range().start));
    if report.original.cache > 0 {
        for tick in x.ticks() {
            let (place, _) = chart.backend_coord(&(tick, chart.y_range().start));
            let share = format!("{:.0} %", 100.0 * tick / report.original.cache as f64);
            area.draw_text(&share, &font(11.0, SOFT, Anchor::Middle), (place, y + px(34.0)))?;
        }
    }
    let middle = (left + layout.size.0 - right) / 2.0;
    let title = font(12.0, INK, Anchor::Middle);
    area.draw_text(
        "KV numbers per token and layer, share of the original",
        &title,
        (px(middle), px(base + 58.0)),
    )
}

/// What goes above all lines.
#[derive(Default)]
struct Marks {
    hints: Vec<Hint>,
    labels: Vec<Label>,
}

impl Marks {
    fn add(&mut self, place: (i32, i32), colour: RGBColor, perplexity: f64, text: String) {
        self.labels.push(Label {
            place: (
                f64::from(place.0) / f64::from(px(1.0)),
                f64::from(place.1) / f64::from(px(1.0)),
            ),
            text: three_digits(perplexity),
            colour,
        });
        self.hints.push(Hint { place, text });
    }

    fn original(&mut self, area: &Area<'_>, chart: &mut Chart<'_, '_>, points: &Points<'_>) -> Drawn<()> {
        let Some(perplexity) = points.original else {
            return Ok(());
        };
        let cache = points.report.original.cache;
        let (start, end) = (chart.x_range().start, chart.x_range().end);
        dashed(chart, [(start, perplexity), (end, perplexity)], INK)?;
        let place = chart.backend_coord(&(cache as f64, perplexity));
        area.draw(&Circle::new(place, px(5.0), INK.filled()))?;
        let text = format!("original: {cache} KV numbers, perplexity {perplexity:.4}");
        self.add(place, INK, perplexity, text);
        Ok(())
    }

    fn curve(
        &mut self,
        area: &Area<'_>,
        chart: &mut Chart<'_, '_>,
        label: &str,
        points: &[SweepPoint],
        (colour, marker): (RGBColor, usize),
    ) -> Drawn<()> {
        let place = |point: &SweepPoint| (point.cache as f64, point.perplexity);
        if points.len() > 1 {
            line(chart, &points.iter().map(place).collect::<Vec<_>>(), colour, 2.0)?;
        }
        for point in points {
            let place = chart.backend_coord(&place(point));
            draw_marker(area, place, marker, colour)?;
            let SweepPoint {
                rope_dim,
                rank,
                cache,
                perplexity,
                ..
            } = point;
            let text = format!("{label} at {rope_dim} + {rank}: {cache} KV numbers, perplexity {perplexity:.4}");
            self.add(place, colour, *perplexity, text);
        }
        Ok(())
    }

    /// Each point's perplexity, where there is room; the table has all.
    fn draw(self, area: &Area<'_>, right: f64) -> Drawn<Vec<Hint>> {
        for (label, (x, y)) in labels::arrange(self.labels, right) {
            let width = 6.6 * label.text.chars().count() as f64;
            // Paper below the digits keeps them readable on lines.
            let ground = [(px(x - 1.0), px(y - 9.5)), (px(x + width), px(y + 1.5))];
            area.draw(&Rectangle::new(ground, PAPER.mix(0.75).filled()))?;
            area.draw_text(
                &label.text,
                &font(11.0, label.colour, Anchor::Start),
                (px(x), px(y - 4.0)),
            )?;
        }
        Ok(self.hints)
    }
}

/// A marker about a place: circle, square, triangle and diamond, then the same hollow.
fn draw_marker(area: &Area<'_>, (x, y): (i32, i32), kind: usize, colour: RGBColor) -> Drawn<()> {
    if kind.is_multiple_of(4) {
        return rings(kind, colour)
            .try_for_each(|(size, style)| area.draw(&Circle::new((x, y), px(5.0 * size), style)));
    }
    let corners: &[(f64, f64)] = match kind % 4 {
        1 => &[(-4.5, -4.5), (4.5, -4.5), (4.5, 4.5), (-4.5, 4.5)],
        2 => &[(0.0, -6.0), (5.5, 3.8), (-5.5, 3.8)],
        _ => &[(0.0, -6.2), (6.2, 0.0), (0.0, 6.2), (-6.2, 0.0)],
    };
    rings(kind, colour).try_for_each(|(size, style)| {
        let corner = |(dx, dy): &(f64, f64)| (x + px(dx * size), y + px(dy * size));
        area.draw(&Polygon::new(corners.iter().map(corner).collect::<Vec<_>>(), style))
    })
}

/// Relative sizes and colours of what a marker is made of: every second four have paper inside.
fn rings(kind: usize, colour: RGBColor) -> impl Iterator<Item = (f64, ShapeStyle)> {
    let inside = (kind % 8 >= 4).then(|| (0.6, PAPER.filled()));
    std::iter::once((1.0, colour.filled())).chain(inside)
}

fn legend(area: &Area<'_>, points: &Points<'_>, layout: &Layout) -> Drawn<()> {
    let rows = points.entries().div_ceil(layout.legend_columns).max(1);
    let column = (layout.size.0 - layout.legend.0) / layout.legend_columns as f64;
    let mut index = 0;
    let mut next = || {
        let (x, y) = layout.legend;
        let place = (
            x + column * (index / rows) as f64,
            y + ENTRY * ((index % rows) as f64 + 0.5),
        );
        index += 1;
        place
    };
    let text = |(x, y): (f64, f64), text: &str| {
        let text = one_line(text);
        area.draw_text(&text, &font(12.0, INK, Anchor::Start), (px(x + 34.0), px(y)))
    };
    let rule = |(x, y): (f64, f64), colour: RGBColor, width: f64| {
        area.draw(&PathElement::new(
            vec![(px(x), px(y)), (px(x + 26.0), px(y))],
            stroke(colour, width),
        ))
    };
    if points.original.is_some() {
        let place = next();
        for dash in [0.0, 10.0, 20.0] {
            let dash = (place.0 + dash, place.1);
            area.draw(&PathElement::new(
                vec![(px(dash.0), px(dash.1)), (px(dash.0 + 6.0), px(dash.1))],
                stroke(INK, 1.3),
            ))?;
        }
        text(place, "original")?;
    }
    for (index, curve) in points.report.curves.iter().enumerate() {
        let place = next();
        rule(place, COLOURS[index % COLOURS.len()], 3.0)?;
        text(place, &curve.label)?;
    }
    for (marker, rope_dim) in points.rope_dims.iter().enumerate() {
        let place = next();
        draw_marker(area, (px(place.0 + 13.0), px(place.1)), marker, SOFT)?;
        text(place, &format!("d_r = {rope_dim}"))?;
    }
    Ok(())
}
