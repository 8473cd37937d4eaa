//! Drawing with plotters: sizes in pixels, the colours of the page, text that a pointer brings up.
//!
//! plotters has whole numbers for places, so a picture is drawn ten times as large as it is shown. Colours are those of
//! paper; `style.css` replaces each by what it is in the dark.

use std::fmt::Write;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::axis::Axis;
use crate::error::ReportError;
use crate::html::escape;

/// Units of a pixel.
const UNIT: f64 = 10.0;

/// plotters makes fonts smaller by this.
const FONT_SCALE: f64 = 1.24;

/// Of pictures that are files of their own; on a page they have the page's.
const FONT: &str = "Helvetica, Arial, DejaVu Sans, sans-serif";

/// More ticks than an axis has: what [`Axis`] gives is what is drawn.
const MOST_TICKS: usize = 64;

/// Text and axes.
pub(crate) const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Text that explains.
pub(crate) const SOFT: RGBColor = RGBColor(0x66, 0x66, 0x66);
/// Lines behind everything.
pub(crate) const GRID: RGBColor = RGBColor(0xe4, 0xe4, 0xe4);
/// The ground.
pub(crate) const PAPER: RGBColor = RGBColor(0xff, 0xff, 0xff);

/// Colours that remain apart for people who see few (Okabe and Ito).
pub(crate) const COLOURS: [RGBColor; 6] = [
    RGBColor(0xd5, 0x5e, 0x00),
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0x00, 0x9e, 0x73),
    RGBColor(0xcc, 0x79, 0xa7),
    RGBColor(0xe6, 0x9f, 0x00),
    RGBColor(0x56, 0xb4, 0xe9),
];

/// What was there before.
pub(crate) const BEFORE: RGBColor = RGBColor(0x8a, 0x8a, 0x8a);
/// What came out.
pub(crate) const AFTER: RGBColor = COLOURS[1];

/// Quantities from little to much, and layers from first to last.
pub(crate) const RAMP: [RGBColor; 7] = [
    RGBColor(0xb5, 0xd4, 0xe9),
    RGBColor(0x8d, 0xc1, 0xdd),
    RGBColor(0x60, 0xa7, 0xd2),
    RGBColor(0x3b, 0x8b, 0xc2),
    RGBColor(0x1f, 0x6d, 0xb0),
    RGBColor(0x0a, 0x4f, 0x97),
    RGBColor(0x08, 0x2f, 0x63),
];

/// A part of a picture.
pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A part of a picture with axes.
pub(crate) type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis, Axis>>;

/// What drawing gives.
pub(crate) type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// A text that appears when a pointer rests near a place.
pub(crate) struct Hint {
    /// Units, as plotters has them.
    pub place: (i32, i32),
    /// What is to be read.
    pub text: String,
}

/// A picture to draw.
pub(crate) struct Picture<'a> {
    /// Its heading, for readers who do not see it.
    pub name: &'a str,
    /// Width and height in pixels.
    pub size: (f64, f64),
}

impl Picture<'_> {
    /// Draws it; gives an `svg` element, which is a file as well.
    pub fn draw(&self, draw: impl FnOnce(&Area<'_>) -> Drawn<Vec<Hint>>) -> Result<String, ReportError> {
        let failed = |source: DrawingAreaErrorKind<std::io::Error>| ReportError::Draw {
            picture: self.name.to_owned(),
            source: source.to_string().into(),
        };
        let (width, height) = self.size;
        let mut drawn = String::new();
        let hints = {
            let size = ((width * UNIT) as u32, (height * UNIT) as u32);
            let area = SVGBackend::with_string(&mut drawn, size).into_drawing_area();
            let hints = draw(&area).map_err(failed)?;
            area.present().map_err(failed)?;
            hints
        };
        // Everything between plotters' own opening and closing tags.
        let start = drawn.find('>').map_or(0, |end| end + 1);
        let end = drawn.rfind("</svg>").unwrap_or(drawn.len());
        let mut svg = format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" width="{width}" height="{height}" role="img" aria-label="{}">"#,
            width * UNIT,
            height * UNIT,
            escape(self.name)
        );
        svg += drawn.get(start..end).unwrap_or_default();
        for hint in hints {
            let ((x, y), text) = (hint.place, escape(&hint.text));
            // Writing to a string does not fail.
            let _ = writeln!(
                svg,
                r#"<circle cx="{x}" cy="{y}" r="{}" fill="none" pointer-events="all"><title>{text}</title></circle>"#,
                9.0 * UNIT
            );
        }
        svg += "</svg>\n";
        Ok(svg)
    }
}

/// Pixels in plotters' units.
pub(crate) fn px(pixels: f64) -> i32 {
    (pixels * UNIT).round() as i32
}

/// A line of a width in pixels.
pub(crate) fn stroke(colour: RGBColor, width: f64) -> ShapeStyle {
    colour.stroke_width(px(width).unsigned_abs())
}

/// Where a text is relative to its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// Text of a size in pixels, centred on its line.
pub(crate) fn font(size: f64, colour: RGBColor, anchor: Anchor) -> TextStyle<'static> {
    styled(size, colour, anchor, FontStyle::Normal)
}

/// The same in bold.
pub(crate) fn bold(size: f64, colour: RGBColor, anchor: Anchor) -> TextStyle<'static> {
    styled(size, colour, anchor, FontStyle::Bold)
}

fn styled(size: f64, colour: RGBColor, anchor: Anchor, style: FontStyle) -> TextStyle<'static> {
    let side = match anchor {
        Anchor::Start => HPos::Left,
        Anchor::Middle => HPos::Center,
        Anchor::End => HPos::Right,
    };
    TextStyle {
        font: (FONT, size * UNIT * FONT_SCALE, style).into_font(),
        color: colour.to_backend_color(),
        pos: Pos::new(side, VPos::Center),
    }
}

/// Axes to draw in.
pub(crate) struct Frame<'a> {
    /// Pixels around the plot: left, top, right, bottom.
    pub margins: (f64, f64, f64, f64),
    pub x: Axis,
    pub y: Axis,
    /// Above the upper end of the vertical axis.
    pub y_title: &'a str,
    /// Below the horizontal axis.
    pub x_title: &'a str,
    pub x_label: &'a dyn Fn(&f64) -> String,
    pub y_label: &'a dyn Fn(&f64) -> String,
}

impl Frame<'_> {
    /// Draws grid, axes, ticks and titles.
    pub fn chart<'a, 'b>(&self, area: &'a Area<'b>) -> Drawn<Chart<'a, 'b>> {
        let (left, top, right, bottom) = self.margins;
        let mut chart = ChartBuilder::on(area)
            .margin_top(px(top))
            .margin_right(px(right))
            .set_label_area_size(LabelAreaPosition::Left, px(left))
            .set_label_area_size(LabelAreaPosition::Bottom, px(bottom))
            .build_cartesian_2d(self.x, self.y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .bold_line_style(stroke(GRID, 1.0))
            .light_line_style(TRANSPARENT)
            .axis_style(stroke(SOFT, 1.0))
            .set_all_tick_mark_size(px(4.0))
            .x_labels(MOST_TICKS)
            .y_labels(MOST_TICKS)
            .x_label_style(font(12.0, SOFT, Anchor::Middle))
            .y_label_style(font(12.0, SOFT, Anchor::End))
            .x_label_formatter(self.x_label)
            .y_label_formatter(self.y_label)
            .draw()?;
        let (width, height) = area.dim_in_pixel();
        let title = font(12.0, INK, Anchor::Start);
        area.draw_text(self.y_title, &title, (px(8.0), px(top - 16.0)))?;
        let middle = (px(left) + width as i32 - px(right)) / 2;
        let title = font(12.0, INK, Anchor::Middle);
        area.draw_text(self.x_title, &title, (middle, height as i32 - px(8.0)))?;
        Ok(chart)
    }
}

/// A line through places of a chart.
pub(crate) fn line(chart: &mut Chart<'_, '_>, points: &[(f64, f64)], colour: RGBColor, width: f64) -> Drawn<()> {
    chart
        .draw_series(std::iter::once(PathElement::new(
            points.to_vec(),
            stroke(colour, width),
        )))
        .map(drop)
}

/// A dashed line from one place of a chart to another.
pub(crate) fn dashed(chart: &mut Chart<'_, '_>, points: [(f64, f64); 2], colour: RGBColor) -> Drawn<()> {
    let dashes = DashedLineSeries::new(points, px(6.0), px(4.0), stroke(colour, 1.3));
    chart.draw_series(dashes).map(drop)
}

/// A colour of the ramp by a share from 0 to 1.
pub(crate) fn ramp(share: f64) -> RGBColor {
    let last = RAMP.len() - 1;
    RAMP[((share.clamp(0.0, 1.0) * last as f64).round() as usize).min(last)]
}
