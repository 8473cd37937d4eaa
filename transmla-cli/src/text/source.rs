//! Texts by name or path.

use std::fmt;
use std::str::FromStr;

use anyhow::Context;
use transmla_calib::{CalibError, DatasetSource, Split, TextRows, load_column};

use crate::printer::Printer;
use crate::{embedded, environment};

/// A dataset, or the text in the binary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// The embedded stories.
    Stories,
    /// A dataset of the hub or a path.
    Dataset(DatasetSource),
}

impl FromStr for TextSource {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            embedded::TEXT => Ok(Self::Stories),
            other => other.parse().map(Self::Dataset).map_err(|error| match error {
                CalibError::UnknownDataset { .. } => {
                    "expected wikitext2, ptb, c4, alpaca, stories (embedded), or an existing file or folder".to_owned()
                }
                other => other.to_string(),
            }),
        }
    }
}

impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stories => f.write_str(embedded::TEXT),
            Self::Dataset(dataset) => dataset.fmt(f),
        }
    }
}

impl TextSource {
    /// Reads a split of it.
    ///
    /// # Errors
    /// It cannot be found or read.
    pub fn load(&self, split: Split, column: Option<&str>, printer: &Printer) -> anyhow::Result<TextRows> {
        let hub = environment::hub_options(printer);
        let loaded = match self {
            Self::Dataset(dataset) => load_column(dataset, split, column, &hub),
            Self::Stories => {
                let folder = embedded::unpack_text()?;
                let rows = load_column(&DatasetSource::Path(folder.path().to_path_buf()), split, None, &hub);
                rows.map(|rows| TextRows {
                    origin: format!("embedded stories, {split} split"),
                    ..rows
                })
            }
        };
        loaded.with_context(|| format!("cannot load the {split} split of {self}"))
    }
}
