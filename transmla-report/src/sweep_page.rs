//! The page of a sweep.

use crate::conversion_page::cost;
use crate::error::ReportError;
use crate::format::{change, count, percent, three_digits};
use crate::html::{Page, Tile, escape, table};
use crate::pictures::trade_off;
use crate::sweep::{SweepPoint, SweepReport};
use crate::tasks_page::of_sweep;

impl SweepReport {
    /// The page, as one HTML file.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn html(&self) -> Result<String, ReportError> {
        page(self)
    }

    /// Perplexity by size of the cache, as one SVG file. Points whose perplexity is not finite are left out.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn svg(&self) -> Result<String, ReportError> {
        trade_off::file(self)
    }
}

/// Sections appear where something is known of them.
fn page(report: &SweepReport) -> Result<String, ReportError> {
    let title = format!("{}: perplexity by size of the KV cache", report.model);
    let subtitle = format!("Perplexity by size of the KV cache, on {}", report.evaluation);
    let mut page = Page::new(
        &title,
        "Sweep of conversions to multi-head latent attention",
        &report.model,
        &subtitle,
    );
    page.tiles(&tiles(report));
    page.facts(&report.facts);
    if report.curves.iter().any(|curve| !curve.points.is_empty()) {
        let (wide, narrow) = (trade_off::wide(report)?, trade_off::narrow(report)?);
        page.push(&format!(
            "<figure id=\"trade-off\" class=\"full\">\n<h3>Cache and perplexity</h3>\n<div class=\"wide\">{wide}</div>\n\
             <div class=\"narrow\">{narrow}</div>\n<figcaption>Every point is a converted model, measured on its files as \
             they were read back. Colours are methods, markers widths of the rotary key; lower and further left is \
             better.</figcaption>\n</figure>\n"
        ));
        page.section("points", "All models", &points(report));
    }
    if let Some(tasks) = of_sweep(report) {
        page.section("tasks", "Accuracy on tasks", &tasks);
    }
    if let Some(recipe) = &report.recipe {
        let recipe = format!("<pre>{}</pre>\n", escape(recipe.trim_end()));
        page.section("recipe", "What the recipes have in common", &recipe);
    }
    Ok(page.finish(&report.generator))
}

fn tiles(report: &SweepReport) -> Vec<Tile> {
    let mut tiles = Vec::new();
    if let Some(perplexity) = report.original.perplexity {
        tiles.push(Tile {
            name: "Original".into(),
            value: three_digits(perplexity),
            note: format!("perplexity at {} KV numbers", count(report.original.cache)),
        });
    }
    // What most want to know: how far half a cache takes them.
    let all = || {
        report
            .curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(move |point| (curve, point)))
    };
    let half = |point: &SweepPoint| 2 * point.cache <= report.original.cache && point.perplexity.is_finite();
    let best = all()
        .filter(|(_, point)| half(point))
        .min_by(|(_, a), (_, b)| a.perplexity.total_cmp(&b.perplexity));
    if let Some((curve, point)) = best {
        tiles.push(Tile {
            name: "Best at half the cache or less".into(),
            value: three_digits(point.perplexity),
            note: format!("{} at {} + {}", curve.label, point.rope_dim, point.rank),
        });
    }
    let models = all().count();
    if models > 0 {
        tiles.push(Tile {
            name: "Models".into(),
            value: count(models),
            note: "converted and measured".into(),
        });
    }
    tiles.extend(cost(report.total_seconds, report.peak_bytes));
    tiles
}

/// All points, from large to small caches.
fn points(report: &SweepReport) -> String {
    let all = || {
        report
            .curves
            .iter()
            .flat_map(|curve| curve.points.iter().map(move |point| (curve, point)))
    };
    let original = report.original.perplexity;
    let has_steps = all().any(|(_, point)| point.partial_rope.is_some());
    let has_folds = all().any(|(_, point)| point.freqfold.is_some());
    let mut columns = vec!["Method", "d_r + r", "KV numbers", "Share"];
    if has_steps {
        columns.push("Partial RoPE");
    }
    columns.push("Perplexity");
    if original.is_some() {
        columns.push("Change");
    }
    if has_folds {
        columns.push("Freqfold");
    }
    let missing = || "–".to_owned();
    let mut points: Vec<_> = all().collect();
    points.sort_by_key(|(_, point)| std::cmp::Reverse((point.cache, point.rope_dim)));
    let mut rows: Vec<Vec<String>> = Vec::new();
    if let Some(original) = original {
        let mut row = vec![
            "original".into(),
            missing(),
            count(report.original.cache),
            "100 %".into(),
        ];
        if has_steps {
            row.push(missing());
        }
        row.extend([format!("{original:.4}"), missing()]);
        if has_folds {
            row.push(missing());
        }
        rows.push(row);
    }
    rows.extend(points.into_iter().map(|(curve, point)| {
        let share = match report.original.cache {
            0 => missing(),
            cache => percent(point.cache as f64 / cache as f64),
        };
        let widths = format!("{} + {}", point.rope_dim, point.rank);
        let mut row = vec![curve.label.clone(), widths, count(point.cache), share];
        if has_steps {
            row.push(point.partial_rope.map_or_else(missing, |it| format!("{it:.4}")));
        }
        row.push(format!("{:.4}", point.perplexity));
        if let Some(original) = original {
            row.push(change(original, point.perplexity));
        }
        if has_folds {
            row.push(point.freqfold.map_or_else(missing, |fold| fold.to_string()));
        }
        row
    }));
    table(&columns, &rows)
}
