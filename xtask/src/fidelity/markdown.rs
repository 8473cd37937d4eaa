//! The table in Markdown.

use std::fmt::Write;

use super::catalogue::{CellId, Model, Way};
use super::devices;
use super::evaluated::Evaluated;
use super::positions;
use super::scores::{LAST_WORDS, MADE, Score};
use super::store::{Cell, Measured, Store};

const HEAD: &str = "\
# Results

Made by `cargo xtask fidelity`, which measures and writes this file; [FILE](FILE) has all digits.

Every perplexity is that of a converted model as it was written, in fp32. *Excess* is the logarithm of a model's perplexity
less that of the original's, as a share of what it is for the published method, `transmla`, at the same budget: on text like
that of the calibration, and on text unlike it. CPU seconds (all processors together) and peak memory (mapped files
included) are those of the conversion alone, in a process of its own. KV numbers are per token and layer. *Healed* is the model of
the row before after `transmla heal --train all` on its calibration text, with the same share of random words, and on as much
that the original writes; time and memory are those of healing alone.
";

/// docs/results.md, whose figures are in the JSON file of this name beside it.
pub fn render(store: &Store, file: &str) -> String {
    let mut text = HEAD.replace("FILE", file);
    for model in Model::ALL {
        if let Some(measured) = store.models.get(model.key()) {
            section(&mut text, model, measured);
        }
    }
    text
}

/// One line about a cell that was just measured.
pub fn line(cell: &Cell) -> String {
    let mut line = format!(
        "{} KV numbers, perplexity {:.4} and {:.4}",
        cell.kv_numbers, cell.like.perplexity, cell.unlike.perplexity
    );
    if let Some(seconds) = cell.cpu_seconds {
        let _ = write!(line, ", {seconds:.1} CPU seconds");
    }
    if let Some(bytes) = cell.peak_bytes {
        let _ = write!(line, ", {} MiB", mebibytes(bytes));
    }
    line
}

fn section(text: &mut String, model: Model, measured: &Measured) {
    let settings = &measured.settings;
    let original = measured.cells.get(&CellId::ORIGINAL.key());
    let windows = |of: fn(&Cell) -> Evaluated| original.map_or(settings.windows, |cell| of(cell).windows);
    let (like, unlike) = (windows(|cell| cell.like), windows(|cell| cell.unlike));
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "\n## {}\n\nCalibrated on {} x {} tokens of {}, coherent with random words in {} of the samples.\nEvaluated on {like} windows of {} tokens of {}, and, as text \
         unlike it, on {unlike} of {}.\n{}\n\n",
        model.title(),
        settings.samples,
        settings.sample_tokens,
        settings.calibration,
        settings.noise.replace('%', " %"),
        settings.window_tokens,
        settings.like,
        settings.unlike,
        freqfold(model, measured)
    );
    let _ = write!(
        text,
        "| d_r, r | KV numbers | method | {} | {} | excess, like | excess, unlike | CPU s | peak MiB |\n\
         | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
        settings.like, settings.unlike
    );
    for id in model.cells() {
        if let Some(cell) = measured.cells.get(&id.key()) {
            row(text, id, cell, measured);
        }
    }
    if !measured.scores.is_empty() {
        scores(text, model, measured);
    }
    positions::section(text, model, &settings.like, &measured.positions);
    devices::section(text, model, [&settings.like, &settings.unlike], &measured.devices);
}

/// The table of tasks, one column for each of the two texts and for each task.
fn scores(text: &mut String, model: Model, measured: &Measured) {
    let items = measured.scores.values().flat_map(|scores| scores.values());
    let items = items.map(|score| score.items).max().unwrap_or(0);
    let settings = &measured.settings;
    let _ = write!(
        text,
        "\nTasks of [tasks.md](tasks.md), 0 examples, {items} items each, in percent with standard errors. *Last word*: the \
         share of passages of {} (like) and {} (unlike) whose last word is guessed. The other columns are **made items**: \
         `transmla-eval/tests/tasks` has the published columns with sentences from a seed, so these figures compare models \
         with each other and with nothing published.\n\n",
        settings.like, settings.unlike
    );
    let metric = |(task, metric): &(&str, &str)| format!("made {task}{}", if *metric == "acc" { "" } else { ", norm" });
    let titles = LAST_WORDS
        .map(|name| format!("last word, {name}"))
        .into_iter()
        .chain(MADE.iter().map(metric));
    let titles: Vec<String> = ["d_r, r", "method"]
        .map(str::to_owned)
        .into_iter()
        .chain(titles)
        .collect();
    let _ = writeln!(text, "| {} |\n|{}", titles.join(" | "), " --- |".repeat(titles.len()));
    for id in model.cells() {
        let (Some(scores), Some(cell)) = (measured.scores.get(&id.key()), measured.cells.get(&id.key())) else {
            continue;
        };
        let of = |name: &str| scores.get(name).map_or_else(String::new, Score::percent);
        let columns = LAST_WORDS
            .iter()
            .copied()
            .chain(MADE.iter().map(|(task, _)| *task))
            .map(of);
        let columns: Vec<String> = [id.budget_text(), method(id, cell)]
            .into_iter()
            .chain(columns)
            .collect();
        let _ = writeln!(text, "| {} |", columns.join(" | "));
    }
}

fn method(id: CellId, cell: &Cell) -> String {
    match id.way {
        Way::Original => "original".to_owned(),
        Way::Transmla => "transmla".into(),
        Way::Coherent => "coherent".into(),
        Way::Refined => format!("coherent, `--refine {}`", cell.refine),
        Way::Healed => {
            let training = cell.heal.as_ref().map(ToString::to_string).unwrap_or_default();
            format!("healed: {training}")
        }
    }
}

fn row(text: &mut String, id: CellId, cell: &Cell, measured: &Measured) {
    let original = measured.cells.get(&CellId::ORIGINAL.key());
    let numbers = match original {
        Some(original) if id.way != Way::Original => {
            let share = 100.0 * cell.kv_numbers as f64 / original.kv_numbers as f64;
            format!("{} ({share:.0} %)", cell.kv_numbers)
        }
        _ => cell.kv_numbers.to_string(),
    };
    let published = CellId {
        way: Way::Transmla,
        ..id
    };
    let published = measured.cells.get(&published.key());
    let excess = |of: fn(&Cell) -> Evaluated| -> Option<String> {
        let published = of(published?).mean_nll - of(original?).mean_nll;
        let own = of(cell).mean_nll - of(original?).mean_nll;
        let sensible = id.way != Way::Original && published > 0.0;
        sensible.then(|| format!("{:.0} %", 100.0 * own / published))
    };
    let columns = [
        id.budget_text(),
        numbers,
        method(id, cell),
        cell.like.four_digits(),
        cell.unlike.four_digits(),
        excess(|cell| cell.like).unwrap_or_default(),
        excess(|cell| cell.unlike).unwrap_or_default(),
        cell.cpu_seconds
            .map_or_else(String::new, |seconds| format!("{seconds:.1}")),
        cell.peak_bytes
            .map_or_else(String::new, |bytes| mebibytes(bytes).to_string()),
    ];
    let _ = writeln!(text, "| {} |", columns.join(" | "));
}

/// The folding that the published method used.
fn freqfold(model: Model, measured: &Measured) -> String {
    let given = &measured.settings.freqfold;
    let chosen = model.cells().into_iter().filter_map(|id| {
        let fold = measured.cells.get(&id.key())?.freqfold?;
        Some((id.budget.0, fold))
    });
    let mut chosen: Vec<(usize, usize)> = chosen.collect();
    chosen.dedup();
    let chosen: Vec<String> = chosen
        .iter()
        .map(|(rope, fold)| format!("{fold} at d_r {rope}"))
        .collect();
    match given.as_str() {
        "auto" if chosen.is_empty() => "transmla with `--freqfold auto`.".into(),
        "auto" => format!("transmla with `--freqfold auto`, which took {}.", chosen.join(" and ")),
        fold => format!("transmla with `--freqfold {fold}`."),
    }
}

fn mebibytes(bytes: u64) -> u64 {
    (bytes + (1 << 19)) >> 20
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::catalogue::{Setup, Training};
    use super::*;
    use crate::cargo::root;

    fn cell(kv_numbers: usize, like: f64, unlike: f64, refine: usize) -> Cell {
        let measured = |perplexity: f64, windows| Evaluated {
            perplexity,
            mean_nll: perplexity.ln(),
            windows,
        };
        Cell {
            kv_numbers,
            like: measured(like, 58),
            unlike: measured(unlike, 14),
            refine,
            heal: None,
            freqfold: None,
            cpu_seconds: None,
            peak_bytes: None,
            revision: None,
        }
    }

    #[test]
    fn shares_are_of_the_published_methods_excess() {
        let folder = tempfile::tempdir().unwrap();
        let published = Cell {
            freqfold: Some(1),
            cpu_seconds: Some(3.26),
            peak_bytes: Some(100 << 20),
            ..cell(36, 16.0, 400.0, 0)
        };
        let healed = Cell {
            heal: Some(Training {
                steps: 9,
                samples: 18,
                sequences: 2,
                tokens: 64,
                learning_rate: 0.001,
            }),
            ..cell(36, 4.0, 100.0, 60)
        };
        let cells = BTreeMap::from([
            ("original".to_owned(), cell(64, 4.0, 100.0, 0)),
            ("8+28/transmla".into(), published),
            ("8+28/refined".into(), cell(36, 8.0, 100.0, 60)),
            ("8+28/healed".into(), healed),
            ("8+12/coherent".into(), cell(20, 1234.5, 99.99, 0)),
        ]);
        let settings = Setup::stories(None, folder.path()).unwrap().settings();
        let mut store = Store::default();
        let score = Score {
            value: 0.37,
            stderr: 0.049,
            items: 50,
        };
        let of_original = BTreeMap::from([("like".to_owned(), score), ("piqa".into(), score)]);
        let scores = BTreeMap::from([("original".to_owned(), of_original)]);
        store.models.insert(
            "stories".into(),
            Measured {
                settings,
                cells,
                scores,
                positions: BTreeMap::new(),
                devices: BTreeMap::new(),
            },
        );
        let text = render(&store, "figures.json");
        assert!(text.contains("[figures.json](figures.json)"));
        for line in [
            "|  | 64 | original | 4.000 | 100.0 |  |  |  |  |",
            "| 8, 28 | 36 (56 %) | transmla | 16.00 | 400.0 | 100 % | 100 % | 3.3 | 100 |",
            "| 8, 28 | 36 (56 %) | coherent, `--refine 60` | 8.000 | 100.0 | 50 % | 0 % |  |  |",
            "| 8, 28 | 36 (56 %) | healed: 9 steps of 2 x 64 tokens, rate 0.001 | 4.000 | 100.0 | 0 % | 0 % |  |  |",
            "| 8, 12 | 20 (31 %) | coherent | 1234 | 99.99 |  |  |  |  |",
            "|  | original | 37 ± 5 |  |  |  |  | 37 ± 5 |  |  |  |  |",
        ] {
            assert!(text.lines().any(|found| found == line), "no {line} in {text}");
        }
        for words in [
            "128 x 256 tokens of stories",
            "58 windows of 512 tokens",
            "on 14 of",
            "took 1 at d_r 8",
        ] {
            assert!(text.contains(words), "no {words} in {text}");
        }
    }

    #[test]
    fn the_tables_in_the_repository_are_those_of_their_figures() {
        let docs = root().join("docs");
        for name in ["results", "results-more-text"] {
            let file = format!("{name}.json");
            let store = Store::read(&docs.join(&file)).unwrap();
            let table = std::fs::read_to_string(docs.join(format!("{name}.md"))).unwrap();
            assert!(
                table == render(&store, &file),
                "cargo xtask fidelity --cells original --output docs/{name}.md writes it anew"
            );
        }
    }
}
