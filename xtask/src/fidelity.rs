//! `cargo xtask fidelity`: a table of the perplexity that each method costs.

mod by_position;
mod catalogue;
mod devices;
mod evaluated;
mod last_words;
mod markdown;
mod measure;
mod on_devices;
mod positions;
mod scores;
mod store;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::cargo::root;
use catalogue::{CellId, Model, Setup, Way};
use measure::Tool;
use store::{Measured, Store};

/// Measure every method on every model and budget and write docs/results.md.
///
/// stories260K and its texts are part of the repository; SmolLM2-135M-Instruct and Gemma 3 270M are added by --smollm2 and
/// --gemma3. Each cell is one model: `transmla convert` in a process of its own, then `transmla eval` on text like that of the
/// calibration and on text unlike it. What is measured is kept in a JSON file beside the table, after every cell: only
/// cells that are not there yet are measured, so that a run that was ended goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fidelity
  cargo xtask fidelity --cells refined --again
  cargo xtask fidelity --smollm2 SmolLM2-135M-Instruct --wikitext wikitext-2-raw-v1 --ptb ptb --cells smollm2
  cargo xtask fidelity --smollm2 SmolLM2-135M-Instruct --wikitext wikitext-2-raw-v1 --ptb ptb --cells smollm2 --tasks 100
  cargo xtask fidelity --devices --cells devices
  cargo xtask fidelity --quick --cells stories/8+28")]
pub struct Arguments {
    /// Folder of SmolLM2-135M-Instruct
    #[arg(long, value_name = "FOLDER", requires_all = ["wikitext", "ptb"])]
    smollm2: Option<PathBuf>,

    /// Folder of Gemma 3 270M
    #[arg(long, value_name = "FOLDER", requires_all = ["wikitext", "ptb"])]
    gemma3: Option<PathBuf>,

    /// Folder of wikitext-2, to calibrate these two on its validation split and evaluate on its test split
    #[arg(long, value_name = "FOLDER")]
    wikitext: Option<PathBuf>,

    /// Folder of the Penn Treebank, the text unlike the calibration text for these two
    #[arg(long, value_name = "FOLDER")]
    ptb: Option<PathBuf>,

    /// The text unlike the calibration text for stories260K, a file or folder [default: the Apache licence]
    #[arg(long, value_name = "PATH")]
    stories_unlike: Option<PathBuf>,

    /// Only cells whose names have all parts of one of these: smollm2, refined, stories/8+28, 4+12/coherent
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    cells: Vec<String>,

    /// Measure the cells even if they have been measured
    #[arg(long)]
    again: bool,

    /// Steps of the refined models
    #[arg(long, value_name = "STEPS", default_value_t = 200)]
    refine: usize,

    /// Steps of the healed models [default: 160 for stories260K, 480 for SmolLM2]
    #[arg(long, value_name = "STEPS")]
    heal: Option<usize>,

    /// Calibration samples of these two [default: 128 for SmolLM2, 64 for Gemma 3]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,

    /// Test windows of these two
    #[arg(long, value_name = "N", default_value_t = 12)]
    windows: usize,

    /// Score tasks as well, at most so many items of each; perplexities that are there stay
    #[arg(long, value_name = "ITEMS")]
    tasks: Option<usize>,

    /// Measure SmolLM2 by position in windows of so many tokens as well, converted with samples as they are and in closed form with long ones
    #[arg(long, value_name = "TOKENS", requires = "smollm2")]
    positions: Option<usize>,

    /// Windows for --positions
    #[arg(long, value_name = "N", default_value_t = 1, requires = "positions")]
    position_windows: usize,

    /// With --positions, look for needles in so many texts of 1024 tokens, 2048 and so on
    #[arg(long, value_name = "TEXTS", default_value_t = 0, requires = "positions")]
    needles: usize,

    /// Measure what each of several devices holds that share the heads as well: one latent, latents of groups of heads, tied ones
    #[arg(long)]
    devices: bool,

    /// Keep the converted models in this folder; one that is there is scored, and healed, without being converted again
    #[arg(long, value_name = "FOLDER")]
    models: Option<PathBuf>,

    /// Few samples, windows and steps, to see that it works; writes only to an --output that is given
    #[arg(long)]
    quick: bool,

    /// The table; the JSON file has the same name but for its ending [default: docs/results.md]
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Runs the task.
pub fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let output = arguments.output.clone();
    let output = output.or_else(|| (!arguments.quick).then(|| root().join("docs/results.md")));
    let file = output.as_ref().map(|output| output.with_extension("json"));
    let mut store = match &file {
        Some(file) if file.exists() => Store::read(file)?,
        _ => Store::default(),
    };
    let temporary = tempfile::tempdir().context("cannot create a temporary folder")?;
    let setups = arguments.setups(temporary.path())?;
    let chosen = arguments.choose(&setups, &store)?;
    if !chosen.is_empty() {
        let tool = Tool::build(temporary.path(), arguments.models.as_deref())?;
        for (done, (setup, cell)) in chosen.iter().enumerate() {
            let name = setup.model.name_of(*cell);
            println!("[{}/{}] {name}", done + 1, chosen.len());
            let known = store.open(setup, arguments.again)?;
            let whole = arguments.again || !arguments.is_fresh(setup, *cell, known);
            let found = tool.measure(setup, *cell, whole, arguments.tasks);
            let found = found.with_context(|| format!("cell {name}"))?;
            if let Some(measured) = found.cell {
                println!("  {}", markdown::line(&measured));
                known.cells.insert(cell.key(), measured);
            }
            if let Some(scores) = found.scores {
                known.scores.insert(cell.key(), scores);
            }
            if let Some(file) = &file {
                store.write(file)?;
            }
        }
        println!();
    }
    if let Some(tokens) = arguments.positions {
        arguments.measure_positions(tokens, &setups, &mut store, file.as_deref(), temporary.path())?;
    }
    if arguments.devices {
        arguments.measure_devices(&setups, &mut store, file.as_deref(), temporary.path())?;
    }
    let name = file.as_deref().and_then(Path::file_name).and_then(OsStr::to_str);
    let table = markdown::render(&store, name.unwrap_or("results.json"));
    print!("{table}");
    if let Some(output) = &output {
        std::fs::write(output, table).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(())
}

impl Arguments {
    /// The models whose files are given.
    fn setups(&self, temporary: &Path) -> anyhow::Result<Vec<Setup>> {
        let mut setups = vec![Setup::stories(self.stories_unlike.as_deref(), temporary)?];
        for (model, folder) in [(Model::Smollm2, &self.smollm2), (Model::Gemma3, &self.gemma3)] {
            if let (Some(folder), Some(wikitext), Some(ptb)) = (folder, &self.wikitext, &self.ptb) {
                let mut setup = Setup::large(model, folder, wikitext, ptb, self.windows)?;
                setup.samples = self.samples.unwrap_or(setup.samples);
                setups.push(setup);
            }
        }
        for setup in &mut setups {
            setup.refine = self.refine;
            setup.heal.steps = self.heal.unwrap_or(setup.heal.steps);
            if self.quick {
                setup.shorten();
            }
        }
        Ok(setups)
    }

    /// Measures SmolLM2 by position.
    fn measure_positions(
        &self,
        tokens: usize,
        setups: &[Setup],
        store: &mut Store,
        file: Option<&Path>,
        temporary: &Path,
    ) -> anyhow::Result<()> {
        let tool = Tool::build(temporary, self.models.as_deref())?;
        let windows = positions::Windows {
            tokens,
            windows: self.position_windows,
            needles: self.needles,
        };
        for setup in setups.iter().filter(|setup| setup.model == Model::Smollm2) {
            let mut known = store.open(setup, self.again)?.positions.clone();
            let selected = |name: &str| self.selects(name);
            let mut keep = |found: &BTreeMap<_, _>| {
                store.open(setup, false)?.positions.clone_from(found);
                file.map_or(Ok(()), |file| store.write(file))
            };
            by_position::measure(&tool, setup, windows, &selected, &mut known, &mut keep)?;
        }
        Ok(())
    }

    /// Measures forms for several devices.
    fn measure_devices(
        &self,
        setups: &[Setup],
        store: &mut Store,
        file: Option<&Path>,
        temporary: &Path,
    ) -> anyhow::Result<()> {
        let tool = Tool::build(temporary, self.models.as_deref())?;
        let selected = |name: &str| self.selects(name);
        for setup in setups {
            if !devices::names(setup.model).any(|(name, _)| self.selects(&name)) {
                continue;
            }
            let mut known = store.open(setup, false)?.devices.clone();
            let mut keep = |found: &BTreeMap<_, _>| {
                store.open(setup, false)?.devices.clone_from(found);
                file.map_or(Ok(()), |file| store.write(file))
            };
            on_devices::measure(&tool, setup, self.again, &selected, &mut known, &mut keep)?;
        }
        Ok(())
    }

    /// Whether `--cells` selects a cell.
    fn selects(&self, name: &str) -> bool {
        self.cells.is_empty() || self.cells.iter().any(|pattern| catalogue::matches(name, pattern))
    }

    /// Checks that each pattern of `--cells` selects a cell whose files are given.
    fn check_cells(&self, setups: &[Setup]) -> anyhow::Result<()> {
        let of = |model: Model| {
            let more = positions::names(model).chain(devices::names(model));
            model.cells_by_name().chain(more)
        };
        let all = || Model::ALL.into_iter().flat_map(of);
        for pattern in &self.cells {
            let mut models = all()
                .filter(|(name, _)| catalogue::matches(name, pattern))
                .map(|(_, model)| model)
                .peekable();
            if models.peek().is_none() {
                let names: Vec<String> = all().map(|(name, _)| name).collect();
                bail!("--cells {pattern} is no cell; there are {}", names.join(", "));
            }
            if !models.any(|model| setups.iter().any(|setup| setup.model == model)) {
                bail!("--cells {pattern} needs --smollm2 or --gemma3, --wikitext and --ptb");
            }
        }
        Ok(())
    }

    /// Whether a cell has been measured, with as many steps as this run would take.
    fn is_fresh(&self, setup: &Setup, cell: CellId, known: &Measured) -> bool {
        let found = known.cells.get(&cell.key());
        let heal = (cell.way == Way::Healed).then_some(&setup.heal);
        found.is_some_and(|found| found.refine == setup.refine_steps(cell.way) && found.heal.as_ref() == heal)
    }

    /// The cells to measure, in order.
    fn choose<'a>(&self, setups: &'a [Setup], store: &Store) -> anyhow::Result<Vec<(&'a Setup, CellId)>> {
        self.check_cells(setups)?;
        let mut chosen = Vec::new();
        for setup in setups {
            let known = store.models.get(setup.model.key());
            let fresh = |cell: CellId| {
                let scored = |known: &Measured| self.tasks.is_none() || known.scores.contains_key(&cell.key());
                known.is_some_and(|known| self.is_fresh(setup, cell, known) && scored(known))
            };
            let mut wanted = setup.model.cells();
            wanted.retain(|cell| self.selects(&setup.model.name_of(*cell)) && (self.again || !fresh(*cell)));
            let other = known.filter(|known| known.settings != setup.settings());
            if let (Some(other), false, false) = (other, wanted.is_empty(), self.again) {
                bail!(
                    "{} was measured with other settings, {}; this run has {}: give the same, or --again to start over, or \
                     other --cells",
                    setup.model.key(),
                    other.settings,
                    setup.settings()
                );
            }
            // Every other figure is compared with the original's.
            let there = other.is_none() && fresh(CellId::ORIGINAL);
            if !(wanted.is_empty() || there || wanted.contains(&CellId::ORIGINAL)) {
                wanted.insert(0, CellId::ORIGINAL);
            }
            chosen.extend(wanted.into_iter().map(|cell| (setup, cell)));
        }
        Ok(chosen)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::evaluated::Evaluated;
    use super::store::Cell;
    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    /// The names of the cells that a command line chooses, given a store.
    fn chosen(line: &str, store: &Store) -> anyhow::Result<Vec<String>> {
        let arguments = Line::parse_from(["fidelity"].into_iter().chain(line.split_whitespace())).arguments;
        let folder = tempfile::tempdir()?;
        let setups = arguments.setups(folder.path())?;
        let chosen = arguments.choose(&setups, store)?;
        Ok(chosen.iter().map(|(_, cell)| cell.key()).collect())
    }

    /// A store with all cells that a command line chooses.
    fn filled(line: &str) -> Store {
        let arguments = Line::parse_from(["fidelity"].into_iter().chain(line.split_whitespace())).arguments;
        let folder = tempfile::tempdir().unwrap();
        let setups = arguments.setups(folder.path()).unwrap();
        let mut store = Store::default();
        let evaluated = Evaluated {
            perplexity: 2.0,
            mean_nll: 2f64.ln(),
            windows: 1,
        };
        for (setup, id) in arguments.choose(&setups, &Store::default()).unwrap() {
            let cell = Cell {
                kv_numbers: 1,
                like: evaluated,
                unlike: evaluated,
                refine: setup.refine_steps(id.way),
                heal: (id.way == Way::Healed).then(|| setup.heal.clone()),
                freqfold: None,
                cpu_seconds: None,
                peak_bytes: None,
                revision: None,
            };
            store.open(setup, false).unwrap().cells.insert(id.key(), cell);
        }
        store
    }

    #[test]
    fn what_is_there_is_not_measured_again_unless_asked_for() {
        let empty = Store::default();
        assert_eq!(chosen("", &empty).unwrap().len(), 17);
        let first = ["original", "8+28/transmla"];
        assert_eq!(chosen("--cells 8+28/transmla", &empty).unwrap(), first);
        let store = filled("--cells 8+28,4+12/coherent");
        assert_eq!(store.models["stories"].cells.len(), 6);
        assert_eq!(chosen("", &store).unwrap().len(), 11);
        assert!(chosen("--cells 8+28", &store).unwrap().is_empty());
        assert_eq!(
            chosen("--cells 8+28 --refine 7", &store).unwrap(),
            ["8+28/refined", "8+28/healed"]
        );
        assert_eq!(chosen("--cells 8+28 --heal 7", &store).unwrap(), ["8+28/healed"]);
        assert_eq!(chosen("--cells 8+28 --again", &store).unwrap().len(), 4);
        // Nothing has been scored.
        assert_eq!(
            chosen("--cells 8+28/coherent --tasks 5", &store).unwrap(),
            ["original", "8+28/coherent"]
        );
    }

    #[test]
    fn other_settings_start_over_or_not_at_all() {
        let store = filled("--quick");
        let error = chosen("--cells 8+28", &store).unwrap_err().to_string();
        assert!(error.contains("2 windows") && error.contains("58 windows"), "{error}");
        let all = chosen("--cells 8+28/coherent --again", &store).unwrap();
        assert_eq!(all, ["original", "8+28/coherent"]);
        for (line, word) in [("--cells 9+9", "no cell"), ("--cells smollm2", "--smollm2")] {
            let error = chosen(line, &store).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
