//! Measurements on disk.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};

use super::catalogue::{Settings, Setup, Training};
use super::devices::Held;
use super::evaluated::Evaluated;
use super::positions::Positions;
use super::scores::Scores;
use crate::json::read_json;

/// All results, by model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Store {
    pub models: BTreeMap<String, Measured>,
}

/// The results of one model, all with the same settings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    pub settings: Settings,
    pub cells: BTreeMap<String, Cell>,
    /// Scores of tasks, of the cells that were scored.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub scores: BTreeMap<String, Scores>,
    /// Perplexities by position, of the models that were measured so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub positions: BTreeMap<String, Positions>,
    /// Forms for devices that share the heads, of the models that were measured so.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub devices: BTreeMap<String, Held>,
}

/// Measurements of one model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Cell {
    pub kv_numbers: usize,
    /// On text like that of the calibration.
    pub like: Evaluated,
    /// On text unlike it.
    pub unlike: Evaluated,
    /// Steps of reconstruction.
    pub refine: usize,
    /// How it was healed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heal: Option<Training>,
    /// Folding that the published method used.
    pub freqfold: Option<usize>,
    /// CPU time of the conversion alone, or of healing alone, where the system reports it.
    pub cpu_seconds: Option<f64>,
    /// Peak memory of the same, mapped files included.
    pub peak_bytes: Option<u64>,
    /// The commit that was measured, if git reports one.
    pub revision: Option<String>,
}

impl Store {
    /// Reads a file that [`Self::write`] wrote.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        read_json(file)
    }

    /// Writes a file atomically.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let mut text = serde_json::to_vec_pretty(self)?;
        text.push(b'\n');
        let partial = file.with_extension("json.partial");
        let written = fs::write(&partial, text).and_then(|()| fs::rename(&partial, file));
        written.with_context(|| format!("cannot write {}", file.display()))
    }

    /// The results of a model, for additions. Results of other settings are dropped if `again`, and an error otherwise.
    pub fn open(&mut self, setup: &Setup, again: bool) -> anyhow::Result<&mut Measured> {
        let settings = setup.settings();
        let key = setup.model.key();
        let other = self.models.get(key).filter(|known| known.settings != settings);
        if let Some(other) = other {
            if !again {
                bail!("{key} was measured with other settings, {}", other.settings);
            }
            self.models.remove(key);
        }
        Ok(self.models.entry(key.into()).or_insert_with(|| Measured {
            settings,
            cells: BTreeMap::new(),
            scores: BTreeMap::new(),
            positions: BTreeMap::new(),
            devices: BTreeMap::new(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_other_settings_are_not_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let mut setup = Setup::stories(None, folder.path()).unwrap();
        let mut store = Store::default();
        let cell = Cell {
            kv_numbers: 36,
            like: Evaluated {
                perplexity: 8.0,
                mean_nll: 8f64.ln(),
                windows: 58,
            },
            unlike: Evaluated {
                perplexity: 300.0,
                mean_nll: 300f64.ln(),
                windows: 14,
            },
            refine: 0,
            heal: None,
            freqfold: Some(1),
            cpu_seconds: Some(3.5),
            peak_bytes: None,
            revision: None,
        };
        let open = store.open(&setup, false).unwrap();
        open.cells.insert("8+28/transmla".into(), cell);
        let file = folder.path().join("results.json");
        store.write(&file).unwrap();
        assert_eq!(Store::read(&file).unwrap(), store);
        assert_eq!(store.open(&setup, true).unwrap().cells.len(), 1);
        setup.windows = 4;
        let error = store.open(&setup, false).unwrap_err().to_string();
        assert!(error.contains("58 windows"), "{error}");
        assert!(store.open(&setup, true).unwrap().cells.is_empty());
        fs::write(&file, "{}").unwrap();
        assert!(Store::read(&file).unwrap_err().to_string().contains("results.json"));
    }
}
