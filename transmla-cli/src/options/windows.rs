//! Options on the text that a model is measured on.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use transmla_calib::ReadOptions;
use transmla_convert::{Corpus, TextReader, TextSource, read_tokenizer};
use transmla_core::ModelConfig;

use super::values;
use crate::environment;
use crate::printer::{Hint, Printer};
use crate::setup::{parse_source, texts_of};

/// What to do where a text cannot be had.
const ANOTHER_TEXT: &str =
    "give another --dataset (a file or folder will do; stories is built in), or exact token ids by --tokens";

/// A text, or exact token ids, in windows of equal length.
#[derive(Debug, Args)]
pub struct WindowArguments {
    /// Text: wikitext2, ptb, c4, alpaca, stories, or a file or folder; its test split is used, chats in the model's chat
    /// template. Several with commas between are measured one by one
    #[arg(long, value_name = "NAME|PATH", value_parser = parse_source, value_delimiter = ',', group = "text")]
    dataset: Vec<TextSource>,

    /// Column that is the text, if the file has columns [default: text, sentence, content, messages, conversations, or the
    /// only one of strings]
    #[arg(long, value_name = "NAME", requires = "dataset")]
    text_column: Option<String>,

    /// Exact token ids: `input_ids` [windows, seq] of a safetensors file
    #[arg(long, value_name = "FILE", group = "text")]
    tokens: Option<PathBuf>,

    /// Tokens per window
    #[arg(long, value_name = "N", value_parser = values::window)]
    seqlen: Option<usize>,

    /// Maximum number of windows
    #[arg(long, value_name = "K", value_parser = values::positive)]
    max_windows: Option<usize>,
}

/// Windows where the options leave something open.
#[derive(Debug, Clone, Copy)]
pub struct DefaultWindows {
    /// Tokens per window.
    pub sequence: usize,
    /// Most windows, if there is a limit.
    pub most: Option<usize>,
}

impl WindowArguments {
    /// Reads the windows of every text; none where no text is given.
    ///
    /// # Errors
    /// A text cannot be read, has not enough tokens for a window, or does not fit the model.
    pub fn read(
        &self,
        defaults: DefaultWindows,
        folder: &Path,
        config: &ModelConfig,
        printer: &Printer,
    ) -> anyhow::Result<Vec<Corpus>> {
        let most = self.max_windows.or(defaults.most);
        if let Some(file) = &self.tokens {
            let corpus = Corpus::from_file(file, most, self.seqlen, config, &mut |it| printer.warn(it))?;
            return Ok(vec![corpus]);
        }
        if self.dataset.is_empty() {
            return Ok(Vec::new());
        }
        let tokenizer = read_tokenizer(folder, &mut |it| printer.warn(it))?;
        let sequence = self.seqlen.unwrap_or(defaults.sequence);
        let read = |source| {
            let (texts, _unpacked) = texts_of(source)?;
            let reader = TextReader {
                config,
                hub: &environment::hub_options(printer),
                locals: &texts,
                options: ReadOptions {
                    column: self.text_column.as_deref(),
                    chat_model: Some(folder),
                },
            };
            Corpus::windows(source, sequence, most, &tokenizer, &reader).context(Hint(ANOTHER_TEXT))
        };
        self.dataset.iter().map(read).collect()
    }

    /// Whether there is more than one text.
    pub fn has_several(&self) -> bool {
        self.dataset.len() > 1
    }

    /// Whether there is a text.
    pub fn is_given(&self) -> bool {
        self.tokens.is_some() || !self.dataset.is_empty()
    }

    /// Tokens per window, or what a command takes instead.
    pub fn seqlen_or(&self, default: usize) -> usize {
        self.seqlen.unwrap_or(default)
    }

    /// The number of windows, or what a command takes instead.
    pub fn max_windows_or(&self, default: usize) -> usize {
        self.max_windows.unwrap_or(default)
    }
}
