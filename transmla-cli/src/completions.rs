//! `transmla completions`: scripts for shells.

use clap::{Args, Command};
use clap_complete::Shell;

use crate::printer::Printer;

/// Print a script that lets a shell complete commands and options.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla completions bash > ~/.local/share/bash-completion/completions/transmla")]
pub struct CompletionsArguments {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Prints the script for `command`, the whole command line.
pub fn run(arguments: &CompletionsArguments, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut command, "transmla", &mut script);
    Printer::text().chunk(&String::from_utf8_lossy(&script))
}
