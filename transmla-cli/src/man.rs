//! `transmla man`: manual pages.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Command};

use crate::printer::Printer;
use crate::table;

/// Write manual pages, one for each command.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  transmla man --output ~/.local/share/man/man1 && man transmla-convert")]
pub struct ManArguments {
    /// Folder for the pages, made if need be; pages of an earlier version in it are replaced
    #[arg(long, value_name = "FOLDER")]
    output: PathBuf,
}

/// Writes the pages of `command`, the whole command line, and of each of its commands.
pub fn run(arguments: &ManArguments, command: Command) -> anyhow::Result<()> {
    let folder = arguments.output.as_path();
    let fail = || format!("cannot write manual pages into {}", folder.display());
    std::fs::create_dir_all(folder).with_context(fail)?;
    // A page for `transmla help convert` would say what `transmla-convert` says.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let pages = 1 + command.get_subcommands().count();
    clap_mangen::generate_to(command, folder).with_context(fail)?;
    let pages = table::plural(pages, "page");
    Printer::text(false).note(format!("Wrote {pages} to {}", folder.display()));
    Ok(())
}
