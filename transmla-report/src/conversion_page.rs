//! The page of one conversion.

use crate::conversion::{ConversionReport, LayerFigures, Sample};
use crate::error::ReportError;
use crate::format::{bytes, change, count, percent, seconds, three_digits};
use crate::html::{Page, Tile, escape, figure, table};
use crate::pictures::{before_after, curves, phases, rotary};
use crate::tasks_page::of_conversion;

impl ConversionReport {
    /// The page, as one HTML file.
    ///
    /// # Errors
    /// [`ReportError::Draw`].
    pub fn html(&self) -> Result<String, ReportError> {
        page(self)
    }
}

/// Sections appear where something is known of them.
fn page(report: &ConversionReport) -> Result<String, ReportError> {
    let title = format!("{}: conversion to latent attention", report.model);
    let mut page = Page::new(
        &title,
        "Conversion to multi-head latent attention",
        &report.model,
        &report.method,
    );
    page.tiles(&tiles(report));
    page.facts(&report.facts);
    let figures = figures(report)?;
    if !figures.is_empty() {
        page.push(&format!("<div class=\"figures\">\n{figures}</div>\n"));
    }
    if !report.tasks.is_empty() {
        page.section("tasks", "Accuracy on tasks", &of_conversion(&report.tasks));
    }
    if !report.samples.is_empty() {
        page.section("samples", "What the models write", &samples(&report.samples));
    }
    if let Some(recipe) = &report.recipe {
        let recipe = format!("<pre>{}</pre>\n", escape(recipe.trim_end()));
        page.section("recipe", "Recipe", &recipe);
    }
    if let Some(layers) = layers(&report.layers) {
        page.section("layers", "Layers", &layers);
    }
    Ok(page.finish(&report.generator))
}

fn tiles(report: &ConversionReport) -> Vec<Tile> {
    let (before, after) = (report.original, report.converted);
    let mut tiles = Vec::new();
    if before.cache > 0 {
        tiles.push(Tile {
            name: "KV cache".into(),
            value: percent(after.cache as f64 / before.cache as f64),
            note: format!(
                "{} → {} numbers per token and layer",
                count(before.cache),
                count(after.cache)
            ),
        });
    }
    if let Some(perplexity) = after.perplexity {
        let note = match before.perplexity {
            Some(original) => format!("original {}, {}", three_digits(original), change(original, perplexity)),
            None => String::new(),
        };
        tiles.push(Tile {
            name: "Perplexity".into(),
            value: three_digits(perplexity),
            note,
        });
    }
    tiles.extend(cost(report.total_seconds, report.peak_bytes));
    tiles
}

/// What it took.
pub(crate) fn cost(total_seconds: Option<f64>, peak_bytes: Option<u64>) -> Vec<Tile> {
    let time = total_seconds.map(|total| Tile {
        name: "Time".into(),
        value: seconds(total),
        note: "from start to end".into(),
    });
    let memory = peak_bytes.map(|peak| Tile {
        name: "Memory".into(),
        value: bytes(peak),
        note: "at its peak".into(),
    });
    time.into_iter().chain(memory).collect()
}

fn figures(report: &ConversionReport) -> Result<String, ReportError> {
    let measured = match &report.evaluation {
        Some(text) => {
            format!(" Perplexities are those of {text}; that of the converted model is of its files, read back.")
        }
        None => String::new(),
    };
    let known = |figure: fn(&LayerFigures) -> bool| report.layers.iter().filter(|layer| figure(layer)).count();
    let missing = |known: usize| match report.layers.len() - known {
        0 => String::new(),
        1 => " One layer was taken over from an earlier run, which did not keep it.".into(),
        more => format!(" {more} layers were taken over from an earlier run, which did not keep it."),
    };
    let pictures = [
        (
            "before-after",
            "Cache and perplexity",
            before_after::draw(report)?,
            format!("What a token costs in each layer's cache, and what the model predicts of text.{measured}"),
        ),
        (
            "errors",
            "Error by layer",
            curves::errors(report)?,
            error_caption(report),
        ),
        (
            "spectrum",
            "Spectrum of the latent",
            curves::spectrum(report)?,
            format!(
                "Share of the energy of keys and values, as the method weighs them, that is outside the best latent of each \
                 rank. One line a layer; the dashed line is the rank of this model.{}",
                missing(known(|layer| !layer.spectrum.is_empty()))
            ),
        ),
        (
            "rotary",
            "RoPE energy by frequency and slot",
            rotary::draw(report)?,
            format!(
                "How much of the energy of the original's key pairs of each frequency the slots of the shared rotary key \
                 carry, mean of the layers; the bars are all slots together. The rest goes on without position.{}",
                missing(known(|layer| layer.rope.is_some()))
            ),
        ),
        (
            "refinement",
            "Refinement by layer",
            curves::refinement(report)?,
            format!(
                "Squared error of the residual stream behind attention on held-out calibration text, relative to what the \
                 original's attention adds to it. The best step is kept.{}",
                missing(known(|layer| layer.refinement.len() > 1))
            ),
        ),
        (
            "phases",
            "Time and memory by phase",
            phases::draw(report)?,
            "Wall time of each phase, and the most memory in use up to its end.".into(),
        ),
    ];
    let figures = pictures
        .iter()
        .filter_map(|(id, heading, picture, caption)| Some(figure(id, heading, picture.as_deref()?, caption)));
    Ok(figures.collect())
}

fn error_caption(report: &ConversionReport) -> String {
    let any = |known: fn(&LayerFigures) -> bool| report.layers.iter().any(known);
    let mut caption = String::new();
    if any(|layer| layer.output_error.is_some()) {
        caption += "Output: squared error of the residual stream behind attention, relative to what the original's attention \
                    adds to it; 100 % is as much as the attention itself adds. Errors of the layers before are in it. ";
    }
    if any(|layer| layer.kept_energy.is_some()) {
        caption += "Energy outside the latent: what the low rank leaves out of keys and values, before refinement. ";
    }
    if any(|layer| layer.key_error.is_some()) {
        caption += "Fitted keys: what a linear map cannot have of keys that the original normalises.";
    }
    caption.trim_end().to_owned()
}

fn samples(samples: &[Sample]) -> String {
    let mut html = String::new();
    for sample in samples {
        let prompt = escape(&sample.prompt);
        let text = |who: &str, text: &str| {
            let text = escape(text);
            format!("<div><h3>{who}</h3><p><b>{prompt}</b>{text}</p></div>\n")
        };
        html += "<div class=\"sample\">\n";
        if let Some(original) = &sample.original {
            html += &text("Original", original);
        }
        html += &text("Converted", &sample.converted);
        html += "</div>\n";
    }
    html
}

/// All figures of the layers as a table.
fn layers(layers: &[LayerFigures]) -> Option<String> {
    type Column = (&'static str, fn(&LayerFigures) -> Option<String>);
    const COLUMNS: [Column; 5] = [
        ("Output error", |layer| layer.output_error.map(percent)),
        ("Before refinement", |layer| {
            (layer.refinement.len() > 1).then(|| percent(layer.refinement[0].1))
        }),
        ("Energy kept in the latent", |layer| layer.kept_energy.map(percent)),
        ("Error of fitted keys", |layer| layer.key_error.map(percent)),
        ("Key energy in the rotary key", |layer| {
            let rope = layer.rope.as_ref()?;
            let sum: f64 = rope.shares.iter().flatten().sum();
            Some(percent(sum / rope.frequencies.len().max(1) as f64))
        }),
    ];
    let known: Vec<&Column> = COLUMNS
        .iter()
        .filter(|(_, value)| layers.iter().any(|layer| value(layer).is_some()))
        .collect();
    if known.is_empty() {
        return None;
    }
    let names: Vec<&str> = std::iter::once("Layer")
        .chain(known.iter().map(|(name, _)| *name))
        .collect();
    let row = |layer: &LayerFigures| {
        let cells = known
            .iter()
            .map(|(_, value)| value(layer).unwrap_or_else(|| "–".into()));
        std::iter::once(layer.layer.to_string()).chain(cells).collect()
    };
    Some(table(&names, &layers.iter().map(row).collect::<Vec<Vec<String>>>()))
}
