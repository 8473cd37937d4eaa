//! What a healing is given.

use std::path::Path;

use transmla_core::{Decoder, TokenBatch};

use crate::spec::healing::Healing;

/// Everything that a healing needs.
#[derive(Clone, Copy)]
pub struct HealRequest<'a> {
    /// The model to heal, as a conversion has written it.
    pub converted: &'a Decoder,
    /// The model that it was converted from.
    pub original: &'a Decoder,
    /// The text, `[sequences, seq]`, of which a share is held out.
    pub text: &'a TokenBatch,
    /// How.
    pub healing: &'a Healing,
    /// Folder to make.
    pub save_path: &'a Path,
    /// Whether an existing folder is replaced, if it holds nothing but what this program has written.
    pub replace: bool,
    /// What the model card says of the original and of the text.
    pub words: Words<'a>,
    /// More files for the folder, as name and contents.
    pub extra_files: &'a [(String, Vec<u8>)],
}

/// What a model card says of a healing beside its figures.
#[derive(Debug, Clone, Copy)]
pub struct Words<'a> {
    /// The original's name.
    pub original: &'a str,
    /// The text.
    pub text: &'a str,
}
