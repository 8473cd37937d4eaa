//! Perplexity by position in long windows and needles in long texts, of models that saw short or long sequences when they were
//! made.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};

use super::catalogue::{CellId, Model, Setup, Way};
use super::scores::Score;

/// Tokens of a long calibration sequence.
const LONG: usize = 4096;

/// A model that is measured by position: a cell of the table, or the same made with long sequences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Variant {
    pub cell: CellId,
    is_long: bool,
}

/// How it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Windows {
    /// Of a window, and of the longest text with a needle.
    pub tokens: usize,
    /// At most so many windows.
    pub windows: usize,
    /// At most so many texts of each length.
    pub needles: usize,
}

/// What was measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Positions {
    pub settings: Windows,
    /// Tokens of a calibration sample; nothing for the original.
    pub sample_tokens: Option<usize>,
    pub ranges: Vec<Range>,
    /// By length of the text.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub needles: BTreeMap<usize, Score>,
}

/// Predictions behind tokens at some positions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The first and the last.
    pub positions: [usize; 2],
    pub mean_nll: f64,
    pub predictions: usize,
}

impl Variant {
    /// All of a model: the original, the coherent method's in closed form with short and with long samples, and refined.
    pub fn all(model: Model) -> Vec<Self> {
        let mut all = Vec::new();
        for cell in model.cells() {
            let variant = |is_long| Self { cell, is_long };
            match cell.way {
                Way::Original | Way::Refined => all.push(variant(false)),
                Way::Coherent => all.extend([variant(false), variant(true)]),
                _ => {}
            }
        }
        all
    }

    pub fn key(self) -> String {
        let key = self.cell.key();
        if self.is_long { format!("{key}/long") } else { key }
    }

    /// Its full name.
    pub fn name(self, model: Model) -> String {
        format!("{}/{}", model.key(), self.key())
    }

    /// The setup with as many tokens in longer samples, if it is one of these.
    pub fn setup(self, setup: &Setup) -> Setup {
        let tokens = setup.samples * setup.sample_tokens;
        match self.is_long {
            false => setup.clone(),
            true => Setup {
                samples: (tokens / LONG).max(1),
                sample_tokens: LONG,
                ..setup.clone()
            },
        }
    }
}

/// The full names of all variants.
pub fn names(model: Model) -> impl Iterator<Item = (String, Model)> {
    let name = move |variant: Variant| (variant.name(model), model);
    Variant::all(model).into_iter().map(name)
}

/// The tables of a model: perplexities by position, and needles where they were looked for.
pub fn section(text: &mut String, model: Model, like: &str, measured: &BTreeMap<String, Positions>) {
    let rows: Vec<(Variant, &Positions)> = Variant::all(model)
        .into_iter()
        .filter_map(|variant| Some((variant, measured.get(&variant.key())?)))
        .collect();
    let Some((_, longest)) = rows.iter().max_by_key(|(_, found)| found.ranges.len()) else {
        return;
    };
    let windows = longest.settings;
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n### By position\n\nPerplexity of predictions behind the tokens at these positions of {}, `transmla eval --by-position`; in \
         brackets what it is of the original's. The text of each range is another, so figures compare within a column. *Samples* are the tokens of a calibration sample, short ones joined to sequences of 512: as \
         many tokens in all.\n\n",
        match windows.windows {
            1 => format!("the first window of {} tokens of {}", windows.tokens, like),
            count => format!("{count} windows of {} tokens of {}", windows.tokens, like),
        }
    );
    let titles: Vec<String> = longest.ranges.iter().map(|range| title(range.positions)).collect();
    head(text, &titles);
    let original = measured.get(&CellId::ORIGINAL.key());
    for (variant, found) in &rows {
        let columns = longest
            .ranges
            .iter()
            .map(|range| perplexity(found, original, range.positions));
        row(text, *variant, found, columns);
    }
    let lengths: Vec<usize> = longest.needles.keys().copied().collect();
    if !lengths.is_empty() {
        let _ = write!(
            text,
            "\nNeedles found in texts of so many tokens, in percent with standard errors, {} texts each; a guess is right in 25.\n\n",
            windows.needles
        );
        head(text, &lengths.iter().map(usize::to_string).collect::<Vec<_>>());
        for (variant, found) in &rows {
            let columns = lengths
                .iter()
                .map(|length| found.needles.get(length).map_or_else(String::new, Score::percent));
            row(text, *variant, found, columns);
        }
    }
}

fn head(text: &mut String, titles: &[String]) {
    let _ = writeln!(
        text,
        "| d_r, r | method | samples | {} |\n|{}",
        titles.join(" | "),
        " --- |".repeat(titles.len() + 3)
    );
}

fn row(text: &mut String, variant: Variant, found: &Positions, columns: impl Iterator<Item = String>) {
    let method = match variant.cell.way {
        Way::Original => "original",
        Way::Refined => "coherent, refined",
        _ => "coherent",
    };
    let samples = found
        .sample_tokens
        .map_or_else(String::new, |tokens| tokens.to_string());
    let columns: Vec<String> = [variant.cell.budget_text(), method.to_owned(), samples]
        .into_iter()
        .chain(columns)
        .collect();
    let _ = writeln!(text, "| {} |", columns.join(" | "));
}

/// `0 to 127`, `1k to 2k`.
fn title([first, last]: [usize; 2]) -> String {
    let thousands = |number: usize| format!("{}k", number / 1024);
    match first {
        short if short < 1024 => format!("{short} to {last}"),
        long => format!("{} to {}", thousands(long), thousands(last + 1)),
    }
}

fn perplexity(found: &Positions, original: Option<&Positions>, positions: [usize; 2]) -> String {
    let of = |found: &Positions| {
        found
            .ranges
            .iter()
            .find(|range| range.positions == positions)
            .map(|range| range.mean_nll)
    };
    let Some(nll) = of(found) else {
        return String::new();
    };
    match original.filter(|original| *original != found).and_then(of) {
        Some(original) => format!("{:.1} ({:.2})", nll.exp(), (nll - original).exp()),
        None => format!("{:.1}", nll.exp()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(factor: f64) -> Positions {
        let range = |first: usize, perplexity: f64| Range {
            positions: [first, 2 * first - 1],
            mean_nll: (factor * perplexity).ln(),
            predictions: first,
        };
        let score = Score {
            value: 0.5,
            stderr: 0.1,
            items: 5,
        };
        Positions {
            settings: Windows {
                tokens: 4096,
                windows: 2,
                needles: 5,
            },
            sample_tokens: (factor > 1.0).then_some(LONG),
            ranges: vec![range(512, 20.0), range(2048, 16.0)],
            needles: BTreeMap::from([(1024, score)]),
        }
    }

    #[test]
    fn ratios_are_to_the_original_at_the_same_positions() {
        let positions = BTreeMap::from([
            ("original".to_owned(), found(1.0)),
            ("8+12/coherent/long".into(), found(1.5)),
        ]);
        let mut text = String::new();
        section(&mut text, Model::Stories, "stories", &positions);
        for line in [
            "| d_r, r | method | samples | 512 to 1023 | 2k to 4k |",
            "|  | original |  | 20.0 | 16.0 |",
            "| 8, 12 | coherent | 4096 | 30.0 (1.50) | 24.0 (1.50) |",
            "| 8, 12 | coherent | 4096 | 50 ± 10 |",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
        assert!(text.contains("2 windows of 4096 tokens of stories"), "{text}");
    }

    #[test]
    fn long_samples_have_as_many_tokens_in_all() {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup::stories(None, folder.path()).unwrap();
        let all = Variant::all(Model::Smollm2);
        assert_eq!(all.len(), 1 + 3 * Model::Smollm2.budgets().len());
        let long = all.iter().find(|variant| variant.is_long).unwrap();
        assert_eq!(long.key(), "32+128/coherent/long");
        let changed = long.setup(&setup);
        assert_eq!((changed.samples, changed.sample_tokens), (8, 4096));
        assert_eq!(
            changed.samples * changed.sample_tokens,
            setup.samples * setup.sample_tokens
        );
    }
}
