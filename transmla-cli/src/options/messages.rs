//! Options on messages, which every command has.

use std::path::PathBuf;

use clap::Args;

use crate::messages::{ColourChoice, Level, LogFile, Settings};

/// What is said beside the result.
#[derive(Debug, Args)]
#[command(next_help_heading = "Messages")]
pub struct MessageArguments {
    /// Print nothing but the result and errors: no progress, notes or warnings
    #[arg(long, short, global = true, conflicts_with = "verbose")]
    quiet: bool,

    /// Say more: a line for each layer or step on terminals too, the device, the memory in use
    #[arg(long, short, global = true)]
    verbose: bool,

    /// Add every message, also those that are not shown, to a file, with the time (UTC)
    #[arg(long, global = true, value_name = "FILE")]
    log_file: Option<PathBuf>,

    /// When to use colours; auto is on terminals, unless NO_COLOR or CLICOLOR=0 is set
    #[arg(
        long,
        global = true,
        value_enum,
        value_name = "auto|always|never",
        default_value = "auto",
        hide_possible_values = true
    )]
    color: ColourChoice,
}

impl MessageArguments {
    /// The settings, with the log opened.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings {
            level: match (self.quiet, self.verbose) {
                (true, _) => Level::Quiet,
                (false, true) => Level::Verbose,
                (false, false) => Level::Normal,
            },
            colour: self.color,
            log: self.log_file.as_deref().map(LogFile::open).transpose()?,
        })
    }
}
