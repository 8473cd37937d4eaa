//! Curves over layers, ranks and steps.

use plotters::prelude::*;

use super::WIDTH;
use crate::axis::{self, Axis};
use crate::canvas::{
    Anchor, Area, COLOURS, Chart, Drawn, Frame, Hint, INK, Picture, RAMP, SOFT, dashed, font, line, px, ramp,
};
use crate::conversion::{ConversionReport, LayerFigures};
use crate::error::ReportError;
use crate::format::percent;

const HEIGHT: f64 = 300.0;
const MARGINS: (f64, f64, f64, f64) = (54.0, 58.0, 14.0, 46.0);

/// Most points of a curve.
const POINTS: usize = 160;

/// Least share that a logarithmic axis shows.
const LEAST: f64 = 1e-5;

/// Places of a curve.
type Points = Vec<(f64, f64)>;

/// What is known of the errors of each layer, as a share in percent.
type Series = (&'static str, RGBColor, fn(&LayerFigures) -> Option<f64>);

const ERRORS: [Series; 3] = [
    ("output (held-out)", COLOURS[1], |layer| layer.output_error),
    ("outside the latent", COLOURS[0], |layer| {
        layer.kept_energy.map(|kept| 1.0 - kept)
    }),
    ("fitted keys", COLOURS[2], |layer| layer.key_error),
];

/// Errors by layer; nothing where none is known.
pub(crate) fn errors(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let points = |(name, colour, value): &Series| {
        let point = |layer: &LayerFigures| {
            let value = value(layer).filter(|value| value.is_finite())?;
            Some((layer.layer as f64, 100.0 * value.max(0.0)))
        };
        let points: Points = report.layers.iter().filter_map(point).collect();
        (!points.is_empty()).then_some((*name, *colour, points))
    };
    let known: Vec<(&str, RGBColor, Points)> = ERRORS.iter().filter_map(points).collect();
    if known.is_empty() {
        return Ok(None);
    }
    let values = known
        .iter()
        .flat_map(|(_, _, points)| points.iter().map(|(_, value)| *value));
    let most = values.fold(0.0, f64::max);
    let picture = Picture {
        name: "Error by layer",
        size: (WIDTH, HEIGHT),
    };
    let frame = Frame {
        margins: MARGINS,
        x: layer_axis(report),
        y: Axis::linear(0.0, if most > 0.0 { 1.06 * most } else { 1.0 }),
        x_title: "Layer",
        y_title: "Squared error, relative",
        x_label: &|layer| format!("{layer:.0}"),
        y_label: &|value| format!("{} %", axis::label(*value)),
    };
    let draw = |area: &Area<'_>| {
        let mut chart = frame.chart(area)?;
        let mut hints = Vec::new();
        for (name, colour, points) in &known {
            line(&mut chart, points, *colour, 1.6)?;
            let dots = points.iter().map(|point| Circle::new(*point, px(2.6), colour.filled()));
            chart.draw_series(dots)?;
            hints.extend(points.iter().map(|(layer, value)| Hint {
                place: chart.backend_coord(&(*layer, *value)),
                text: format!("layer {layer}: {name} {}", percent(value / 100.0)),
            }));
        }
        let entries: Vec<(&str, RGBColor)> = known.iter().map(|(name, colour, _)| (*name, *colour)).collect();
        legend(area, &entries)?;
        Ok(hints)
    };
    picture.draw(draw).map(Some)
}

/// What a latent of each rank leaves out, by layer; nothing where no spectrum is known.
pub(crate) fn spectrum(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let curves: Vec<(usize, Points)> = report
        .layers
        .iter()
        .filter_map(|layer| Some((layer.layer, left_out(&layer.spectrum)?)))
        .collect();
    let widest = report
        .layers
        .iter()
        .map(|layer| layer.spectrum.len())
        .max()
        .unwrap_or(0);
    if curves.is_empty() {
        return Ok(None);
    }
    // Down to a little below what the chosen rank leaves out anywhere.
    let at_rank = curves.iter().flat_map(|(_, curve)| {
        let behind = curve.iter().find(|(rank, _)| *rank >= report.rank as f64);
        behind.map(|(_, share)| *share)
    });
    let least = at_rank.fold(f64::INFINITY, f64::min) / 3.0;
    let least = if least.is_finite() {
        least.clamp(LEAST, 0.01)
    } else {
        0.01
    };
    let picture = Picture {
        name: "Spectrum of the latent",
        size: (WIDTH, HEIGHT),
    };
    let frame = Frame {
        margins: MARGINS,
        x: Axis::whole(0.0, widest as f64),
        y: Axis::logarithmic(100.0 * least, 100.0),
        x_title: "Rank of the latent",
        y_title: "Energy that a latent of this rank leaves out",
        x_label: &|rank| format!("{rank:.0}"),
        y_label: &|value| format!("{} %", axis::label(*value)),
    };
    let draw = |area: &Area<'_>| {
        let mut chart = frame.chart(area)?;
        by_depth(&mut chart, &curves, least, 1.2)?;
        if report.rank > 0 && report.rank <= widest {
            let rank = report.rank as f64;
            dashed(&mut chart, [(rank, 100.0 * least), (rank, 100.0)], INK)?;
            let (x, y) = chart.backend_coord(&(rank, 100.0));
            // Where the right half is, there is more room on the left.
            let (anchor, aside) = match 2 * report.rank > widest {
                true => (Anchor::End, -px(6.0)),
                false => (Anchor::Start, px(6.0)),
            };
            let text = format!("rank {}", report.rank);
            area.draw_text(&text, &font(12.0, INK, anchor), (x + aside, y + px(9.0)))?;
        }
        depth_legend(area, &curves)?;
        Ok(Vec::new())
    };
    picture.draw(draw).map(Some)
}

/// Share of the energy beyond each rank, at some ranks.
fn left_out(spectrum: &[f64]) -> Option<Points> {
    let energy = |value: &f64| if value.is_finite() { value.max(0.0) } else { 0.0 };
    let total: f64 = spectrum.iter().map(energy).sum();
    if total <= 0.0 {
        return None;
    }
    let step = spectrum.len().div_ceil(POINTS);
    let mut points = vec![(0.0, 1.0)];
    // From the small end, so that what is left is not a difference of large numbers.
    let mut behind = vec![0.0; spectrum.len() + 1];
    for (index, value) in spectrum.iter().enumerate().rev() {
        behind[index] = behind[index + 1] + energy(value);
    }
    points.extend(
        (1..=spectrum.len())
            .filter(|rank| rank.is_multiple_of(step))
            .map(|rank| (rank as f64, behind[rank] / total)),
    );
    Some(points)
}

/// Held-out error by steps of refinement, by layer; nothing where nothing was refined.
pub(crate) fn refinement(report: &ConversionReport) -> Result<Option<String>, ReportError> {
    let known = |(step, error): &(usize, f64)| (error.is_finite() && *error > 0.0).then_some((*step as f64, *error));
    let curves: Vec<(usize, Points)> = report
        .layers
        .iter()
        .map(|layer| (layer.layer, layer.refinement.iter().filter_map(known).collect()))
        .filter(|(_, points): &(_, Vec<_>)| points.len() > 1)
        .collect();
    let all = || curves.iter().flat_map(|(_, points)| points);
    let steps = all().map(|(step, _)| *step).fold(0.0, f64::max);
    let (low, high) = all().fold((f64::INFINITY, 0.0f64), |(low, high), (_, error)| {
        (low.min(*error), high.max(*error))
    });
    if curves.is_empty() || steps <= 0.0 {
        return Ok(None);
    }
    let picture = Picture {
        name: "Refinement by layer",
        size: (WIDTH, HEIGHT),
    };
    let low = (low / 1.15).max(LEAST);
    let frame = Frame {
        margins: MARGINS,
        x: Axis::whole(0.0, steps),
        y: Axis::logarithmic(100.0 * low, 115.0 * high.max(low)),
        x_title: "Steps of refinement",
        y_title: "Held-out error, relative",
        x_label: &|step| format!("{step:.0}"),
        y_label: &|value| format!("{} %", axis::label(*value)),
    };
    let draw = |area: &Area<'_>| {
        let mut chart = frame.chart(area)?;
        by_depth(&mut chart, &curves, low, 1.4)?;
        depth_legend(area, &curves)?;
        let last = |(layer, points): &(usize, Points)| {
            let (step, error) = *points.last()?;
            let place = chart.backend_coord(&(step, 100.0 * error));
            let text = format!("layer {layer}: {} → {}", percent(points[0].1), percent(error));
            Some(Hint { place, text })
        };
        Ok(curves.iter().filter_map(last).collect())
    };
    picture.draw(draw).map(Some)
}

fn layer_axis(report: &ConversionReport) -> Axis {
    let last = report.layers.iter().map(|layer| layer.layer).max().unwrap_or(0);
    let first = report.layers.iter().map(|layer| layer.layer).min().unwrap_or(0);
    Axis::whole(first as f64 - 0.4, last as f64 + 0.4)
}

/// One line for each layer, light for the first and dark for the last, down to a least share.
fn by_depth(chart: &mut Chart<'_, '_>, curves: &[(usize, Points)], least: f64, width: f64) -> Drawn<()> {
    for (index, (_, points)) in curves.iter().enumerate() {
        let shown: Points = points
            .iter()
            .take_while(|(_, share)| *share >= least)
            .map(|(x, share)| (*x, 100.0 * share))
            .collect();
        line(chart, &shown, ramp(depth(index, curves.len())), width)?;
    }
    Ok(())
}

fn depth(index: usize, count: usize) -> f64 {
    match count {
        0 | 1 => 1.0,
        _ => index as f64 / (count - 1) as f64,
    }
}

/// Names of series beside their colours, above a picture.
fn legend(area: &Area<'_>, entries: &[(&str, RGBColor)]) -> Drawn<()> {
    let mut left = 8.0;
    for (name, colour) in entries {
        let corners = [(px(left), px(9.0)), (px(left + 14.0), px(13.0))];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
        area.draw_text(name, &font(12.0, SOFT, Anchor::Start), (px(left + 20.0), px(11.0)))?;
        left += 20.0 + 6.1 * name.chars().count() as f64 + 18.0;
    }
    Ok(())
}

/// First and last layer at the ends of the ramp, above a picture.
fn depth_legend(area: &Area<'_>, curves: &[(usize, Points)]) -> Drawn<()> {
    let (Some((first, _)), Some((last, _))) = (curves.first(), curves.last()) else {
        return Ok(());
    };
    let text = font(12.0, SOFT, Anchor::Start);
    area.draw_text(&format!("layer {first}"), &text, (px(8.0), px(11.0)))?;
    let left = 60.0;
    for (index, colour) in RAMP.iter().enumerate() {
        let start = left + 14.0 * index as f64;
        let corners = [(px(start), px(7.0)), (px(start + 14.0), px(15.0))];
        area.draw(&Rectangle::new(corners, colour.filled()))?;
    }
    let end = left + 14.0 * RAMP.len() as f64 + 8.0;
    area.draw_text(&format!("layer {last}"), &text, (px(end), px(11.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spectrum_leaves_out_less_with_every_rank() {
        let points = left_out(&[6.0, 3.0, 1.0, 0.0, -1e-9]).unwrap();
        let expected = [(0.0, 1.0), (1.0, 0.4), (2.0, 0.1), (3.0, 0.0), (4.0, 0.0), (5.0, 0.0)];
        for ((rank, share), (expected_rank, expected)) in points.iter().zip(expected) {
            assert!(*rank == expected_rank && (share - expected).abs() < 1e-12, "{points:?}");
        }
        assert_eq!(points.len(), 6);
        assert!(left_out(&vec![1.0; 5000]).unwrap().len() <= POINTS + 1);
        assert!(left_out(&[0.0, 0.0]).is_none() && left_out(&[]).is_none());
    }
}
