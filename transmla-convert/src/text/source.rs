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

/// What lists call the text that the original writes itself.
const OWN: &str = "self";

/// A dataset, a text that the program has, or one that the original writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TextSource {
    /// What the original model writes itself, `self`: for calibration alone.
    Own,
    /// One of the program's, by its name.
    Local(String),
    /// A dataset of the hub or a path.
    Dataset(DatasetSource),
}

impl fmt::Display for TextSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str(OWN),
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
        if text == OWN {
            return Ok(Self::Own);
        }
        text.parse().map(Self::Dataset).map_err(|error| match error {
            CalibError::UnknownDataset { .. } => {
                let own: String = locals
                    .iter()
                    .map(|local| format!("{} ({}), ", local.name, local.kind))
                    .collect();
                TextNameError::new(format!(
                    "expected wikitext2, ptb, c4, alpaca, {own}{OWN} (calibration only), or an existing file or \
                     folder"
                ))
            }
            other => TextNameError::new(other.to_string()),
        })
    }

    /// The text of a name, to measure on; see [`Self::parse`].
    ///
    /// # Errors
    /// As for [`Self::parse`]; the text that the original writes, on which nothing is measured.
    pub fn parse_for_evaluation(text: &str, locals: &[LocalText]) -> Result<Self, TextNameError> {
        match Self::parse(text, locals)? {
            Self::Own => Err(not_read()),
            source => Ok(source),
        }
    }

    /// Reads a split of it.
    ///
    /// # Errors
    /// It cannot be found or read, or is the text that the original writes.
    pub fn load(
        &self,
        split: Split,
        options: &ReadOptions<'_>,
        hub: &HubOptions,
        locals: &[LocalText],
    ) -> Result<TextRows, ConvertError> {
        let loaded = match self {
            Self::Own => return Err(not_read().into()),
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

fn not_read() -> TextNameError {
    TextNameError::new(format!(
        "'{OWN}' is the text that the original writes to calibrate on; nothing is measured on it, for it would be what the \
         conversion was fitted to: name another text"
    ))
}
