//! `cargo xtask fidelity`: what the methods cost in perplexity, measured and tabulated.

mod catalogue;
mod markdown;
mod measure;
mod store;

use std::path::PathBuf;

use anyhow::{Context, bail};

use crate::cargo::root;
use catalogue::{Model, Setup, Way};
use measure::Tool;
use store::{Cell, Store};

/// Measure every method on every model and budget and write docs/results.md.
///
/// stories260K and its texts are part of the repository; SmolLM2-135M-Instruct and its texts are added by --smollm2. Each
/// cell is one model: `transmla convert` in a process of its own, then `transmla eval` on text like that of the
/// calibration and on text unlike it. What is measured is kept in a JSON file beside the table, after every cell: only
/// cells that are not there yet are measured, so that a run that was ended goes on where it was.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask fidelity
  cargo xtask fidelity --cells refined --again
  cargo xtask fidelity --smollm2 SmolLM2-135M-Instruct --wikitext wikitext-2-raw-v1 --ptb ptb --cells smollm2
  cargo xtask fidelity --quick --cells stories/8+28")]
pub struct Arguments {
    /// Folder of SmolLM2-135M-Instruct
    #[arg(long, value_name = "FOLDER", requires_all = ["wikitext", "ptb"])]
    smollm2: Option<PathBuf>,

    /// Folder of wikitext-2, to calibrate SmolLM2 on its validation split and evaluate on its test split
    #[arg(long, value_name = "FOLDER")]
    wikitext: Option<PathBuf>,

    /// Folder of the Penn Treebank, the text unlike the calibration text for SmolLM2
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
    #[arg(long, value_name = "STEPS", default_value_t = 100)]
    refine: usize,

    /// Calibration samples of SmolLM2
    #[arg(long, value_name = "N", default_value_t = 128)]
    samples: usize,

    /// Test windows of SmolLM2
    #[arg(long, value_name = "N", default_value_t = 12)]
    windows: usize,

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
        let tool = Tool::build(temporary.path())?;
        for (done, (setup, cell)) in chosen.iter().enumerate() {
            let name = setup.model.name_of(*cell);
            println!("[{}/{}] {name}", done + 1, chosen.len());
            let measured = tool.measure(setup, *cell).with_context(|| format!("cell {name}"))?;
            println!("  {}", markdown::line(&measured));
            let known = store.open(setup, arguments.again)?;
            known.cells.insert(cell.key(), measured);
            if let Some(file) = &file {
                store.write(file)?;
            }
        }
        println!();
    }
    let table = markdown::render(&store);
    print!("{table}");
    if let Some(output) = &output {
        std::fs::write(output, table).with_context(|| format!("cannot write {}", output.display()))?;
    }
    Ok(())
}

impl Arguments {
    /// The models that there is everything for.
    fn setups(&self, temporary: &std::path::Path) -> anyhow::Result<Vec<Setup>> {
        let mut setups = vec![Setup::stories(self.stories_unlike.as_deref(), temporary)?];
        if let (Some(model), Some(wikitext), Some(ptb)) = (&self.smollm2, &self.wikitext, &self.ptb) {
            setups.push(Setup::smollm2(model, wikitext, ptb, self.samples, self.windows)?);
        }
        for setup in &mut setups {
            setup.refine = self.refine;
            if self.quick {
                setup.shorten();
            }
        }
        Ok(setups)
    }

    /// The cells to measure, in order.
    fn choose<'a>(&self, setups: &'a [Setup], store: &Store) -> anyhow::Result<Vec<(&'a Setup, catalogue::CellId)>> {
        for pattern in &self.cells {
            let all = Model::ALL.into_iter().flat_map(Model::cells_by_name);
            let models: Vec<Model> = all
                .filter(|(name, _)| catalogue::matches(name, pattern))
                .map(|(_, model)| model)
                .collect();
            if models.is_empty() {
                let names = Model::ALL
                    .into_iter()
                    .flat_map(Model::cells_by_name)
                    .map(|(name, _)| name);
                bail!(
                    "--cells {pattern} is no cell; there are {}",
                    names.collect::<Vec<_>>().join(", ")
                );
            }
            if !setups.iter().any(|setup| models.contains(&setup.model)) {
                bail!("--cells {pattern} needs --smollm2, --wikitext and --ptb");
            }
        }
        let mut chosen = Vec::new();
        for setup in setups {
            let known = store.models.get(setup.model.key());
            let same = known.is_none_or(|known| known.settings == setup.settings());
            let mut wanted = Vec::new();
            for cell in setup.model.cells() {
                let name = setup.model.name_of(cell);
                if !self.cells.is_empty() && !self.cells.iter().any(|pattern| catalogue::matches(&name, pattern)) {
                    continue;
                }
                let stale = |found: &Cell| cell.way == Way::Refined && found.refine != setup.refine;
                let found = known.and_then(|known| known.cells.get(&cell.key()));
                if self.again || found.is_none_or(stale) {
                    wanted.push(cell);
                }
            }
            if !(wanted.is_empty() || same || self.again) {
                bail!(
                    "{} was measured with other settings, {}; this run has {}: give the same, or --again to start over, or \
                     other --cells",
                    setup.model.key(),
                    known.map_or_else(String::new, |known| known.settings.to_string()),
                    setup.settings()
                );
            }
            // Every other figure is compared with the original's.
            let original = catalogue::CellId::ORIGINAL;
            let there = same && known.is_some_and(|known| known.cells.contains_key(&original.key()));
            if !(wanted.is_empty() || there || wanted.contains(&original)) {
                wanted.insert(0, original);
            }
            chosen.extend(wanted.into_iter().map(|cell| (setup, cell)));
        }
        Ok(chosen)
    }
}
