//! `transmla man`: manual pages.

use std::path::PathBuf;

use anyhow::{Context, bail};
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
    if folder.exists() && !folder.is_dir() {
        bail!(
            "{} is a file, and --output names a folder: there is a page for each command",
            folder.display()
        );
    }
    std::fs::create_dir_all(folder).with_context(fail)?;
    // A page for `transmla help convert` would say what `transmla-convert` says.
    let mut command = command.disable_help_subcommand(true);
    command.build();
    let pages = 1 + command.get_subcommands().count();
    clap_mangen::generate_to(command, folder).with_context(fail)?;
    for entry in std::fs::read_dir(folder).with_context(fail)? {
        let path = entry.with_context(fail)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with("transmla") && name.ends_with(".1") {
            let page = std::fs::read_to_string(&path).with_context(fail)?;
            std::fs::write(&path, with_examples_as_they_are(&page)).with_context(fail)?;
        }
    }
    let pages = table::plural(pages, "page");
    Printer::text(false).note(format!("Wrote {pages} to {}", folder.display()));
    Ok(())
}

/// A page whose examples keep their lines: what follows the options of a command is no running text.
fn with_examples_as_they_are(page: &str) -> String {
    let Some((before, examples)) = page.split_once(".SH EXTRA\n") else {
        return page.to_owned();
    };
    let (examples, after) = match examples.split_once("\n.SH ") {
        Some((examples, after)) => (examples, format!("\n.SH {after}")),
        None => (examples.trim_end(), "\n".to_owned()),
    };
    format!("{before}.SH EXAMPLES\n.nf\n{examples}\n.fi{after}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn examples_keep_their_lines() {
        let page = ".SH NAME\nx\n.SH EXTRA\nExamples:\n  a\n  b\n.SH VERSION\nv1\n";
        let expected = ".SH NAME\nx\n.SH EXAMPLES\n.nf\nExamples:\n  a\n  b\n.fi\n.SH VERSION\nv1\n";
        assert_eq!(with_examples_as_they_are(page), expected);
        assert_eq!(with_examples_as_they_are(".SH NAME\nx\n"), ".SH NAME\nx\n");
    }
}
