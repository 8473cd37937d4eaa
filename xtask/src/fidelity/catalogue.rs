//! Models, budgets, methods and texts of the measurements.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::cargo::root;

/// Share of samples with random words for the coherent method (its default).
const NOISE: &str = "25%";

/// Half a CPU minute.
const STORIES_HEALED: Training = Training {
    steps: 160,
    samples: 160,
    sequences: 2,
    tokens: 512,
    learning_rate: 0.01,
};

/// Some 80 CPU minutes where a step takes 10 CPU seconds.
const SMOLLM2_HEALED: Training = Training {
    steps: 480,
    samples: 480,
    sequences: 2,
    tokens: 512,
    learning_rate: 0.0007,
};

/// A model of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    Stories,
    Smollm2,
    Gemma3,
}

/// Origin of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// The original.
    Original,
    /// The published method.
    Transmla,
    /// The coherent method in closed form.
    Coherent,
    /// The coherent method with refinement.
    Refined,
    /// The refined model, trained on the original as a whole.
    Healed,
}

/// A model that is measured: its budget d_r + r, and its origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CellId {
    pub budget: (usize, usize),
    pub way: Way,
}

impl CellId {
    /// The original, whose budget is its own.
    pub const ORIGINAL: Self = Self {
        budget: (0, 0),
        way: Way::Original,
    };

    /// Its name among the cells of its model.
    pub fn key(self) -> String {
        let (rope, rank) = self.budget;
        match self.way {
            Way::Original => "original".into(),
            way => format!("{rope}+{rank}/{}", way.name()),
        }
    }

    /// Its budget in a table: nothing for the original.
    pub fn budget_text(self) -> String {
        let (rope, rank) = self.budget;
        match self.way {
            Way::Original => String::new(),
            _ => format!("{rope}, {rank}"),
        }
    }
}

impl Way {
    const CONVERTED: [Self; 4] = [Self::Transmla, Self::Coherent, Self::Refined, Self::Healed];

    fn name(self) -> &'static str {
        match self {
            Self::Original => "original",
            Self::Transmla => "transmla",
            Self::Coherent => "coherent",
            Self::Refined => "refined",
            Self::Healed => "healed",
        }
    }
}

impl Model {
    pub const ALL: [Self; 3] = [Self::Stories, Self::Smollm2, Self::Gemma3];

    /// Its name in cells and in the JSON file.
    pub fn key(self) -> &'static str {
        match self {
            Self::Stories => "stories",
            Self::Smollm2 => "smollm2",
            Self::Gemma3 => "gemma3",
        }
    }

    /// Its name in the table.
    pub fn title(self) -> &'static str {
        match self {
            Self::Stories => "stories260K",
            Self::Smollm2 => "SmolLM2-135M-Instruct",
            Self::Gemma3 => "Gemma 3 270M",
        }
    }

    /// Widths of rotary key and latent.
    pub fn budgets(self) -> &'static [(usize, usize)] {
        match self {
            Self::Stories => &[(8, 28), (8, 12), (4, 28), (4, 12)],
            Self::Smollm2 => &[(32, 128), (32, 64), (16, 112)],
            // With the scale of the one key head's norm three quarters, half and a quarter of 512 numbers.
            Self::Gemma3 => &[(128, 255), (64, 191), (64, 63)],
        }
    }

    /// Those that models are healed at, which takes longer than all the rest.
    fn healed(self) -> &'static [(usize, usize)] {
        match self {
            Self::Stories => self.budgets(),
            Self::Smollm2 => &[(32, 128), (32, 64)],
            Self::Gemma3 => &[],
        }
    }

    /// All its cells, in the order of the table.
    pub fn cells(self) -> Vec<CellId> {
        let converted = self
            .budgets()
            .iter()
            .flat_map(|budget| Way::CONVERTED.map(|way| CellId { budget: *budget, way }));
        let converted = converted.filter(|id| id.way != Way::Healed || self.healed().contains(&id.budget));
        [CellId::ORIGINAL].into_iter().chain(converted).collect()
    }

    /// The full name of a cell.
    pub fn name_of(self, cell: CellId) -> String {
        format!("{}/{}", self.key(), cell.key())
    }

    /// The full names of all its cells.
    pub fn cells_by_name(self) -> impl Iterator<Item = (String, Self)> {
        self.cells().into_iter().map(move |cell| (self.name_of(cell), self))
    }
}

/// Whether a name contains all parts of a pattern.
pub fn matches(name: &str, pattern: &str) -> bool {
    pattern
        .split('/')
        .all(|part| name.split('/').any(|other| other == part))
}

/// A model and its texts, as they are passed to `transmla`.
#[derive(Debug, Clone)]
pub struct Setup {
    pub model: Model,
    pub path: OsString,
    pub calibration: Text,
    pub samples: usize,
    pub sample_tokens: usize,
    pub like: Text,
    pub unlike: Text,
    pub windows: usize,
    pub window_tokens: usize,
    pub freqfold: &'static str,
    pub noise: &'static str,
    pub refine: usize,
    pub heal: Training,
}

/// How a model is healed: all projections, on its calibration text and as much that the original writes, with the same share of random
/// words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Training {
    pub steps: usize,
    /// Sequences there are, fewer than the steps see.
    pub samples: usize,
    /// Sequences of a step.
    pub sequences: usize,
    /// Tokens of a sequence.
    pub tokens: usize,
    pub learning_rate: f64,
}

impl fmt::Display for Training {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps of {} x {} tokens, rate {}",
            self.steps, self.sequences, self.tokens, self.learning_rate
        )
    }
}

/// Settings that must agree for figures to be comparable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub calibration: String,
    pub samples: usize,
    pub sample_tokens: usize,
    pub like: String,
    pub unlike: String,
    /// Maximum number of test windows of each text.
    pub windows: usize,
    pub window_tokens: usize,
    /// Of the published method.
    pub freqfold: String,
    /// Share of samples with random words, for the coherent method.
    pub noise: String,
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} x {} tokens of {}, and {} windows of {} tokens of {} and of {}, freqfold {}, noise {}",
            self.samples,
            self.sample_tokens,
            self.calibration,
            self.windows,
            self.window_tokens,
            self.like,
            self.unlike,
            self.freqfold,
            self.noise
        )
    }
}

/// A text: the value of `--cal-dataset` or `--dataset`, and its name in the table.
#[derive(Debug, Clone)]
pub struct Text {
    pub dataset: OsString,
    pub name: String,
}

impl Text {
    fn new(dataset: impl Into<OsString>, name: &str) -> Self {
        Self {
            dataset: dataset.into(),
            name: name.into(),
        }
    }

    /// A file or folder, made absolute: tasks run in the folder of the workspace.
    fn at(path: &Path, name: &str) -> anyhow::Result<Self> {
        ensure!(path.exists(), "there is no {}", path.display());
        Ok(Self::new(absolute(path)?, name))
    }
}

fn absolute(path: &Path) -> anyhow::Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("cannot find {}", path.display()))
}

impl Setup {
    /// The model and the texts of the repository, with the licence as the text that is unlike stories.
    pub fn stories(unlike: Option<&Path>, temporary: &Path) -> anyhow::Result<Self> {
        let unlike = match unlike {
            Some(path) => {
                let name = path.file_name().unwrap_or(path.as_os_str());
                Text::at(path, &name.to_string_lossy())?
            }
            None => {
                let (file, licence) = (temporary.join("licence.txt"), root().join("LICENSE"));
                std::fs::copy(&licence, &file).with_context(|| format!("cannot copy {}", licence.display()))?;
                Text::at(&file, "the Apache licence")?
            }
        };
        Ok(Self {
            model: Model::Stories,
            path: "embedded".into(),
            calibration: Text::new("stories", "stories, train split"),
            samples: 128,
            sample_tokens: 256,
            like: Text::new("stories", "stories, test split"),
            unlike,
            windows: 58,
            window_tokens: 512,
            freqfold: "auto",
            noise: NOISE,
            refine: 0,
            heal: STORIES_HEALED,
        })
    }

    /// A model and texts that are given as folders.
    pub fn large(model: Model, folder: &Path, wikitext: &Path, ptb: &Path, windows: usize) -> anyhow::Result<Self> {
        ensure!(folder.join("config.json").is_file(), "{} is no model", folder.display());
        // As in the published table of SmolLM2; auto would try 2 and more at every budget.
        let (freqfold, samples) = match model {
            Model::Stories | Model::Smollm2 => ("4", 128),
            // A vocabulary of 262144 makes every text four times as expensive.
            Model::Gemma3 => ("auto", 64),
        };
        Ok(Self {
            model,
            path: absolute(folder)?.into(),
            calibration: Text::at(wikitext, "wikitext-2, validation split")?,
            samples,
            sample_tokens: 256,
            like: Text::at(wikitext, "wikitext-2, test split")?,
            unlike: Text::at(ptb, "Penn Treebank, test split")?,
            windows,
            window_tokens: 512,
            freqfold,
            noise: NOISE,
            refine: 0,
            heal: SMOLLM2_HEALED,
        })
    }

    /// Reduces samples, windows and steps for a quick run.
    pub fn shorten(&mut self) {
        self.samples = self.samples.min(8);
        self.windows = self.windows.min(2);
        self.refine = self.refine.min(4);
        self.heal.steps = self.heal.steps.min(2);
    }

    /// Steps of reconstruction of a model.
    pub fn refine_steps(&self, way: Way) -> usize {
        match way {
            Way::Refined | Way::Healed => self.refine,
            Way::Original | Way::Transmla | Way::Coherent => 0,
        }
    }

    /// Settings that must agree for figures to be comparable.
    pub fn settings(&self) -> Settings {
        Settings {
            calibration: self.calibration.name.clone(),
            samples: self.samples,
            sample_tokens: self.sample_tokens,
            like: self.like.name.clone(),
            unlike: self.unlike.name.clone(),
            windows: self.windows,
            window_tokens: self.window_tokens,
            freqfold: self.freqfold.into(),
            noise: self.noise.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_parts_of_names() {
        let chosen = |pattern: &str| {
            let names = Model::ALL.into_iter().flat_map(Model::cells_by_name);
            names.filter(|(name, _)| matches(name, pattern)).count()
        };
        assert_eq!(chosen("stories"), 17);
        assert_eq!(chosen("smollm2"), 12);
        assert_eq!(chosen("gemma3"), 10);
        assert_eq!(chosen("refined"), 10);
        assert_eq!(chosen("healed"), 6);
        assert_eq!(chosen("original"), 3);
        assert_eq!(chosen("8+12/coherent"), 1);
        assert_eq!(chosen("stories/8+28"), 4);
        assert_eq!(chosen("8"), 0);
    }
}
