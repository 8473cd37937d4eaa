//! The picture of a sweep, as SVG.
//!
//! A colour for each method, a marker for each width of the rotary key; points of one colour and marker are joined.

use super::axis::{self, Axis};
use super::labels::{self, Label};
use super::outcome::{Outcome, Point};
use super::svg::{Document, shorten};

/// Size of the picture, and the rectangle of the plot in it: left, top, right, bottom.
const SIZE: (f64, f64) = (920.0, 560.0);
const PLOT: (f64, f64, f64, f64) = (86.0, 84.0, 690.0, 478.0);

/// Where the legend starts.
const LEGEND: (f64, f64) = (716.0, 96.0);

/// Colours that remain apart for people who see few (Okabe and Ito).
const COLOURS: [&str; 6] = ["#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const INK: &str = "#222222";
const SOFT: &str = "#666666";
const GRID: &str = "#e4e4e4";

/// Most characters of a line above the plot.
const LINE: usize = 110;

/// Draws the outcome; points whose perplexity is not finite are left out.
pub fn svg(outcome: &Outcome<'_>) -> String {
    Picture::new(outcome).draw()
}

struct Picture<'a> {
    outcome: &'a Outcome<'a>,
    points: Vec<Point<'a>>,
    original: Option<f64>,
    /// Widths of the rotary key, from wide to narrow: each has a marker.
    rope_dims: Vec<usize>,
    x: Axis,
    y: Axis,
    labels: Vec<Label>,
    out: Document,
}

impl<'a> Picture<'a> {
    fn new(outcome: &'a Outcome<'a>) -> Self {
        let drawn = |perplexity: f64| perplexity.is_finite() && perplexity > 0.0;
        let mut points = outcome.points.clone();
        points.retain(|point| drawn(point.perplexity));
        points.sort_by_key(|point| point.cache);
        let original = outcome.original.map(|it| it.perplexity).filter(|it| drawn(*it));
        let mut rope_dims: Vec<usize> = points.iter().map(|point| point.rope_dim).collect();
        rope_dims.sort_unstable_by(|a, b| b.cmp(a));
        rope_dims.dedup();
        let all = points.iter().map(|point| point.perplexity).chain(original);
        let (low, high) = all.fold((f64::INFINITY, 0.0f64), |(low, high), p| (low.min(p), high.max(p)));
        // A margin of a tenth of the range, and of 2 % at least.
        let margin = (high / low).powf(0.1).max(1.02);
        let range = if low.is_finite() {
            (low / margin, high * margin)
        } else {
            (1.0, 10.0)
        };
        let most = points
            .iter()
            .map(|point| point.cache)
            .chain([outcome.original_cache])
            .max();
        Self {
            outcome,
            points,
            original,
            rope_dims,
            x: Axis {
                values: (0.0, 1.04 * most.unwrap_or(1) as f64),
                pixels: (PLOT.0, PLOT.2),
                logarithmic: false,
            },
            y: Axis {
                values: range,
                pixels: (PLOT.3, PLOT.1),
                logarithmic: true,
            },
            labels: Vec::new(),
            out: Document::new(SIZE, INK),
        }
    }

    fn draw(mut self) -> String {
        self.headings();
        self.axes();
        self.original();
        self.curves();
        self.labels();
        self.legend();
        self.out.finish()
    }

    fn headings(&mut self) {
        let title = format!("Perplexity by size of the KV cache: {}", self.outcome.model);
        self.out.text(
            (PLOT.0, 34.0),
            r#"font-size="18" font-weight="bold""#,
            &shorten(&title, 80),
        );
        let text = format!("on {}", self.outcome.evaluation());
        self.out
            .text((PLOT.0, 58.0), &format!(r#"fill="{SOFT}""#), &shorten(&text, LINE));
    }

    fn axes(&mut self) {
        let (left, top, right, bottom) = PLOT;
        for tick in self.y.ticks() {
            let y = self.y.place(tick);
            self.out.element(format_args!(
                r#"<line x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="{GRID}"/>"#
            ));
            self.out
                .text((left - 10.0, y + 4.5), r#"text-anchor="end""#, &axis::label(tick));
        }
        for tick in self.x.ticks() {
            let x = self.x.place(tick);
            self.out.element(format_args!(
                r#"<line x1="{x:.1}" x2="{x:.1}" y1="{top}" y2="{bottom}" stroke="{GRID}"/>"#
            ));
            self.out
                .text((x, bottom + 20.0), r#"text-anchor="middle""#, &axis::label(tick));
            let share = 100.0 * tick / self.outcome.original_cache as f64;
            let style = format!(r#"text-anchor="middle" font-size="11" fill="{SOFT}""#);
            self.out.text((x, bottom + 35.0), &style, &format!("{share:.0} %"));
        }
        self.out.element(format_args!(
            r#"<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="{INK}"/>"#
        ));
        let middle = (left + right) / 2.0;
        let style = r#"text-anchor="middle" font-size="14""#;
        let label = "KV numbers per token and layer, and share of the original's";
        self.out.text((middle, bottom + 62.0), style, label);
        let centre = (top + bottom) / 2.0;
        let style = format!(r#"text-anchor="middle" font-size="14" transform="rotate(-90 24 {centre})""#);
        self.out.text((24.0, centre), &style, "Perplexity (logarithmic)");
    }

    fn original(&mut self) {
        let Some(perplexity) = self.original else { return };
        let (x, y) = (
            self.x.place(self.outcome.original_cache as f64),
            self.y.place(perplexity),
        );
        let (left, right) = (PLOT.0, PLOT.2);
        self.out.element(format_args!(
            r#"<line x1="{left}" x2="{right}" y1="{y:.1}" y2="{y:.1}" stroke="{INK}" stroke-dasharray="6 4"/>"#
        ));
        let cache = self.outcome.original_cache;
        self.out.element(format_args!(
            r#"<circle cx="{x:.1}" cy="{y:.1}" r="5" fill="{INK}"><title>original: {cache} KV numbers, perplexity {perplexity:.4}</title></circle>"#
        ));
        self.labels.push(Label {
            place: (x, y),
            text: three_digits(perplexity),
            colour: INK,
        });
    }

    fn curves(&mut self) {
        let outcome = self.outcome;
        for (index, curve) in outcome.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            for marker in 0..self.rope_dims.len() {
                let rope_dim = self.rope_dims[marker];
                let joined = |point: &Point<'_>| point.curve == *curve && point.rope_dim == rope_dim;
                let points: Vec<Point<'_>> = self.points.iter().copied().filter(joined).collect();
                let places: Vec<(f64, f64)> = points
                    .iter()
                    .map(|point| (self.x.place(point.cache as f64), self.y.place(point.perplexity)))
                    .collect();
                let path: Vec<String> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
                if path.len() > 1 {
                    let path = path.join(" ");
                    self.out.element(format_args!(
                        r#"<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>"#
                    ));
                }
                for (point, place) in points.iter().zip(&places) {
                    let title = format!(
                        "{} at {} + {}: {} KV numbers, perplexity {:.4}",
                        curve.label(),
                        point.rope_dim,
                        point.rank,
                        point.cache,
                        point.perplexity
                    );
                    self.out.marker(marker, *place, colour, &title);
                }
                for (point, place) in points.iter().zip(&places) {
                    self.labels.push(Label {
                        place: *place,
                        text: three_digits(point.perplexity),
                        colour,
                    });
                }
            }
        }
    }

    /// Each point's perplexity, where there is room; the table has all.
    fn labels(&mut self) {
        for (label, start) in labels::arrange(std::mem::take(&mut self.labels)) {
            // White below the digits keeps them readable on lines.
            let below = r##"font-size="11" stroke="#ffffff" stroke-width="3""##;
            self.out.text(start, below, &label.text);
            self.out.text(
                start,
                &format!(r#"font-size="11" fill="{}""#, label.colour),
                &label.text,
            );
        }
    }

    fn legend(&mut self) {
        let outcome = self.outcome;
        let (x, mut y) = LEGEND;
        if self.original.is_some() {
            let end = x + 26.0;
            self.out.element(format_args!(
                r#"<line x1="{x}" x2="{end}" y1="{y}" y2="{y}" stroke="{INK}" stroke-dasharray="6 4"/>"#
            ));
            self.out.text((x + 36.0, y + 4.5), "", "original");
            y += 24.0;
        }
        for (index, curve) in outcome.curves.iter().enumerate() {
            let colour = COLOURS[index % COLOURS.len()];
            let end = x + 26.0;
            self.out.element(format_args!(
                r#"<line x1="{x}" x2="{end}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="3"/>"#
            ));
            self.out.text((x + 36.0, y + 4.5), "", &curve.label());
            y += 24.0;
        }
        y += 12.0;
        self.out
            .text((x, y + 4.5), &format!(r#"fill="{SOFT}""#), "width of the rotary key");
        for marker in 0..self.rope_dims.len() {
            y += 24.0;
            let rope_dim = self.rope_dims[marker];
            let name = format!("d_r = {rope_dim}");
            self.out.marker(marker, (x + 13.0, y), SOFT, &name);
            self.out.text((x + 36.0, y + 4.5), "", &name);
        }
    }
}

/// A perplexity beside its point.
fn three_digits(value: f64) -> String {
    let decimals = (2 - value.max(1.0).log10().floor() as i32).max(0) as usize;
    format!("{value:.decimals$}")
}

#[cfg(test)]
mod tests {
    use transmla_convert::MethodName;
    use transmla_eval::Perplexity;

    use super::super::arguments::Curve;
    use super::*;

    const CURVES: [Curve; 2] = [
        Curve {
            method: MethodName::Transmla,
            refine: 0,
        },
        Curve {
            method: MethodName::Coherent,
            refine: 100,
        },
    ];

    fn point(curve: usize, rope_dim: usize, rank: usize, perplexity: f64) -> Point<'static> {
        Point {
            curve: CURVES[curve],
            rope_dim,
            rank,
            cache: rope_dim + rank,
            perplexity,
            partial_rope: None,
            freqfold: None,
            folder: None,
        }
    }

    fn drawn(model: &str, points: Vec<Point<'_>>, original: Option<f64>) -> String {
        svg(&Outcome {
            model,
            text: "some text",
            window: 512,
            original_cache: 64,
            original: original.map(|perplexity| Perplexity {
                perplexity,
                mean_nll: perplexity.ln(),
                standard_error: None,
                windows: 3,
                predictions: 3 * 511,
            }),
            points,
            curves: &CURVES,
            total_seconds: 1.0,
            peak_bytes: None,
        })
    }

    #[test]
    fn every_point_is_in_its_place() {
        let points = vec![
            point(0, 8, 28, 8.0),
            point(0, 8, 12, 16.0),
            point(1, 8, 28, 4.5),
            point(1, 4, 28, 5.0),
        ];
        let picture = drawn("a <model> & \"more\"", points, Some(4.0));
        let document = roxmltree::Document::parse(&picture).unwrap();
        // A page scales the whole picture, and does not cut it.
        assert_eq!(document.root_element().attribute("viewBox"), Some("0 0 920 560"));
        let of = |name: &str| document.descendants().filter(|node| node.has_tag_name(name)).count();
        // Three points and the original of the widest key, one entry of the legend; only two points are joined.
        assert_eq!((of("circle"), of("polyline")), (5, 1));
        let texts: Vec<&str> = document.descendants().filter_map(|node| node.text()).collect();
        for text in [
            "Perplexity by size of the KV cache: a <model> & \"more\"",
            "transmla at 8 + 12: 20 KV numbers, perplexity 16.0000",
            "coherent, refine 100",
            "d_r = 4",
            "16.0",
            "31 %",
        ] {
            assert!(texts.contains(&text), "{text} is not in {texts:?}");
        }
        // Half the cache of the original is half way to it, and twice the perplexity is higher by what it is again higher
        // at four times.
        let line = document
            .descendants()
            .find(|node| node.has_tag_name("polyline"))
            .unwrap();
        let places: Vec<f64> = line
            .attribute("points")
            .unwrap()
            .split([' ', ','])
            .map(|number| number.parse().unwrap())
            .collect();
        let original = document.descendants().find(|node| node.has_tag_name("circle")).unwrap();
        let place = |name: &str| original.attribute(name).unwrap().parse::<f64>().unwrap();
        let [x20, y16, x36, y8] = places[..] else {
            panic!("{places:?}")
        };
        assert!(((x36 - PLOT.0) / (place("cx") - PLOT.0) - 36.0 / 64.0).abs() < 1e-3);
        assert!(((x20 - PLOT.0) / (place("cx") - PLOT.0) - 20.0 / 64.0).abs() < 1e-3);
        assert!(((place("cy") - y8) - (y8 - y16)).abs() < 0.3);
    }

    #[test]
    fn what_cannot_be_drawn_is_left_out() {
        for points in [
            vec![],
            vec![point(0, 8, 28, f64::INFINITY)],
            vec![point(0, 8, 28, f64::NAN), point(0, 8, 28, 4.0)],
        ] {
            for original in [None, Some(4.0)] {
                let picture = drawn("\u{1}\u{ffff}", points.clone(), original);
                assert!(roxmltree::Document::parse(&picture).is_ok(), "{picture}");
                assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
            }
        }
    }
}
