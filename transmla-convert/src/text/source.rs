//! Texts by name or path.

use std::fmt;
use std::path::PathBuf;

use transmla_calib::{CalibError, DatasetSource, ReadOptions, Split, TextRows, load_with};
use transmla_core::hub::HubOptions;

use crate::spec::error::{ConvertError, TextNameError};

/// A text that a program has at hand under a name of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalText {
    /// What recipes call it.
    pub name: String,
    /// What kind of text it is, in front of its name: `embedded` stories.
    pub kind: String,
    /// Its files, by split; not looked at where texts are only named.
    pub folder: PathBuf,
}

/// A dataset, or a text that the program has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// One of the program's, by its name.
    Local(String),
    /// A dataset of the hub or a path.
    Dataset(DatasetSource),
}

impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Local(name) => f.write_str(name),
            Self::Dataset(dataset) => dataset.fmt(f),
        }
    }
}

impl TextSource {
    /// The text of a name, where the program has some of its own.
    ///
    /// # Errors
    /// Neither a name nor an existing path.
    pub fn parse(text: &str, locals: &[LocalText]) -> Result<Self, TextNameError> {
        if locals.iter().any(|local| local.name == text) {
            return Ok(Self::Local(text.to_owned()));
        }
        text.parse().map(Self::Dataset).map_err(|error| match error {
            CalibError::UnknownDataset { .. } => {
                let own: String = locals
                    .iter()
                    .map(|local| format!("{} ({}), ", local.name, local.kind))
                    .collect();
                TextNameError::new(format!(
                    "expected wikitext2, ptb, c4, alpaca, {own}or an existing file or folder"
                ))
            }
            other => TextNameError::new(other.to_string()),
        })
    }

    /// Reads a split of it.
    ///
    /// # Errors
    /// It cannot be found or read.
    pub fn load(
        &self,
        split: Split,
        options: &ReadOptions<'_>,
        hub: &HubOptions,
        locals: &[LocalText],
    ) -> Result<TextRows, ConvertError> {
        let loaded = match self {
            Self::Dataset(dataset) => load_with(dataset, split, options, hub),
            Self::Local(name) => {
                let Some(local) = locals.iter().find(|local| local.name == *name) else {
                    return Err(TextNameError::new(format!("there is no text {name}")).into());
                };
                let options = ReadOptions {
                    column: None,
                    ..*options
                };
                let rows = load_with(&DatasetSource::Path(local.folder.clone()), split, &options, hub);
                rows.map(|rows| TextRows {
                    origin: format!("{} {name}, {split} split", local.kind),
                    ..rows
                })
            }
        };
        loaded.map_err(ConvertError::doing(format!("cannot load the {split} split of {self}")))
    }
}
