//! Text that the original writes for a sweep: taken from where it is kept, or written and kept.

use std::path::{Path, PathBuf};

use transmla_calib::{SampleSpec, TextTokenizer};
use transmla_core::{Decoder, TokenBatch};

use crate::output::kept_text;
use crate::spec::error::ConvertError;
use crate::spec::report::Observer;
use crate::text::written::{Author, write_samples};

/// Opens the original to write, its weights in memory if they may be.
pub(crate) type OpenOriginal<'a> = dyn Fn() -> Result<Decoder, ConvertError> + 'a;

/// The name of a file, and its contents.
pub(crate) type NamedFile = (String, Vec<u8>);

/// The original as an author.
pub(crate) struct OwnText<'a> {
    /// As the conversion reads it, for what its weights are told by; nothing where there are none.
    source: Option<&'a Decoder>,
    original: &'a OpenOriginal<'a>,
    folder: &'a Path,
    /// Where texts may be kept.
    places: &'a [PathBuf],
    /// Where one may be beside that.
    earlier: Option<&'a Path>,
    max_bytes: u64,
    /// The place, by index, of the model that the next text is for.
    model: usize,
    /// The file of the last text.
    file: Option<Vec<u8>>,
}

impl<'a> OwnText<'a> {
    /// Of a sweep to these places; writing takes at most `max_bytes`.
    pub fn new(
        source: Option<&'a Decoder>,
        original: &'a OpenOriginal<'a>,
        folder: &'a Path,
        places: &'a [PathBuf],
        earlier: Option<&'a Path>,
        max_bytes: u64,
    ) -> Self {
        Self {
            source,
            original,
            folder,
            places,
            earlier,
            max_bytes,
            model: 0,
            file: None,
        }
    }

    /// The next text is for this one of the sweep's models.
    pub fn is_for(&mut self, model: usize) {
        self.model = model;
    }

    /// The file of the text that was written or found since the last call, for the folder of the model.
    pub fn take_file(&mut self) -> Option<NamedFile> {
        self.file.take().map(|contents| (kept_text::FILE.to_owned(), contents))
    }
}

impl Author for OwnText<'_> {
    fn write(
        &mut self,
        spec: &SampleSpec,
        tokenizer: &TextTokenizer,
        observer: &mut dyn Observer,
    ) -> Result<TokenBatch, ConvertError> {
        let fingerprint = match self.source {
            Some(source) => kept_text::fingerprint(source, self.folder, spec)?,
            None => kept_text::fingerprint(&(self.original)()?, self.folder, spec)?,
        };
        let mut places = self.places.iter().map(PathBuf::as_path).chain(self.earlier);
        let found = places.find_map(|place| kept_text::find(place, &fingerprint));
        let tokens = match &found {
            Some(tokens) => tokens.clone(),
            None => write_samples(
                &(self.original)()?,
                self.folder,
                tokenizer,
                spec,
                self.max_bytes,
                observer,
            )?,
        };
        let contents = kept_text::contents(&tokens, &fingerprint)?;
        if let (None, Some(place)) = (&found, self.places.get(self.model)) {
            kept_text::keep(place, &contents)?;
        }
        self.file = Some(contents);
        Ok(tokens)
    }
}
