//! The options that give a prompt.

use std::io::{IsTerminal, Read};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use transmla_core::checkpoint::read_regular_text;

use crate::printer::Hint;

/// Most bytes of a prompt.
const LARGEST_PROMPT: u64 = 16 << 20;

const NO_PROMPT: &str = "no prompt was given: use --prompt TEXT, --prompt-file FILE, or pipe a text into the command";

/// What to do with a pipe or a device that is named as a file.
const PIPE: &str = "pipe the text into the command, without --prompt-file";

/// The text to continue or to answer.
#[derive(Debug, Args)]
pub struct PromptArguments {
    /// Text to continue, or with --chat to answer; `-` or nothing reads standard input
    #[arg(long, value_name = "TEXT")]
    prompt: Option<String>,

    /// File with that text
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    prompt_file: Option<PathBuf>,
}

impl PromptArguments {
    /// The prompt.
    ///
    /// # Errors
    /// A file or an input that cannot be read, is too large or not UTF-8; none at all.
    pub fn read(&self) -> anyhow::Result<String> {
        let stdin = std::io::stdin();
        match (&self.prompt, &self.prompt_file) {
            (_, Some(file)) => {
                let text = read_regular_text(file, LARGEST_PROMPT).map_err(anyhow::Error::new);
                let is_other = std::fs::metadata(file).is_ok_and(|data| !data.is_file() && !data.is_dir());
                Ok(without_line_end(if is_other {
                    text.context(Hint(PIPE))?
                } else {
                    text?
                }))
            }
            (Some(text), _) if text != "-" => Ok(text.clone()),
            (None, _) if stdin.is_terminal() => bail!(NO_PROMPT),
            _ => {
                let mut text = String::new();
                let read = stdin.lock().take(LARGEST_PROMPT + 1).read_to_string(&mut text);
                read.context("cannot read the prompt from standard input")?;
                if text.len() as u64 > LARGEST_PROMPT {
                    bail!("the prompt on standard input has over {} MiB", LARGEST_PROMPT >> 20);
                }
                if text.is_empty() && self.prompt.is_none() {
                    bail!(NO_PROMPT);
                }
                Ok(without_line_end(text))
            }
        }
    }
}

/// A text without the line end that files and `echo` end with, as a shell takes the output of a command.
fn without_line_end(mut text: String) -> String {
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    text
}
