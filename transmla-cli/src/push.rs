//! `transmla push`: a converted model onto the hub.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use transmla_convert::ModelFiles;
use transmla_core::hub::{Upload, upload};

use crate::environment::hub_options;
use crate::options::output::OutputArguments;
use crate::options::values;
use crate::printer::Printer;
use crate::table::{self, Table};

/// Upload a converted model to the Hugging Face hub.
///
/// The files that the conversion has written go into one commit; what is there already is not sent again, nor what an upload
/// that failed has stored. The repository and the branch are made if they are missing. The token is that of HF_TOKEN or
/// of `hf auth login`, and needs write access.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PushArguments {
    /// Converted model: a folder that `transmla convert` has written
    #[arg(long, value_name = "FOLDER")]
    model_path: PathBuf,

    /// Repository to upload to
    #[arg(long, value_name = "OWNER/NAME", value_parser = values::repository)]
    repo_id: String,

    /// Branch to upload to
    #[arg(long, value_name = "BRANCH", default_value = "main")]
    revision: String,

    /// Make the repository private; one that everybody can see is refused
    #[arg(long)]
    private: bool,

    /// First line of the commit [default: the program and its version]
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,

    /// Show what would be uploaded, and ask nobody
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    printing: OutputArguments,
}

const EXAMPLES: &str = "\
Examples:
  transmla push --model-path converted --repo-id me/model-mla --dry-run
  transmla push --model-path converted --repo-id me/model-mla --private";

const MESSAGE: &str = concat!("Upload with transmla ", env!("CARGO_PKG_VERSION"));

pub fn run(arguments: &PushArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.printing);
    let ModelFiles { files, others } = ModelFiles::of(&arguments.model_path)?;
    if !others.is_empty() {
        printer.note(format!(
            "Not of the conversion, and not uploaded: {}",
            others.join(", ")
        ));
    }
    let bytes: u64 = files.iter().map(|(_, bytes)| bytes).sum();
    if arguments.dry_run {
        let title = format!("Plan: {} -> {}", arguments.model_path.display(), arguments.repo_id);
        let mut table = Table::new(title);
        for (name, bytes) in &files {
            table.row(name, table::bytes(*bytes));
        }
        let file = |(name, bytes): &(String, u64)| json!({ "name": name, "bytes": bytes });
        let json = json!({
            "dry_run": true,
            "repo_id": arguments.repo_id,
            "revision": arguments.revision,
            "files": files.iter().map(file).collect::<Vec<_>>(),
        });
        return printer.result(&table.to_string(), &json);
    }
    let names: Vec<String> = files.into_iter().map(|(name, _)| name).collect();
    let wanted = Upload {
        repo: &arguments.repo_id,
        revision: &arguments.revision,
        private: arguments.private,
        message: arguments.message.as_deref().unwrap_or(MESSAGE),
    };
    let done = upload(&arguments.model_path, &names, &wanted, &hub_options(&printer))?;
    if !done.ignored.is_empty() {
        let ignored = done.ignored.join(", ");
        printer.warn(format!("not uploaded, as the repository's .gitignore says: {ignored}"));
    }
    printer.note(match done.committed.len() {
        0 => format!("All {} were there already", table::plural(done.unchanged.len(), "file")),
        count => format!(
            "{} in one commit, {} there already",
            table::plural(count, "file"),
            done.unchanged.len()
        ),
    });
    let json = json!({
        "repo_id": arguments.repo_id,
        "revision": arguments.revision,
        "url": done.address,
        "commit": done.commit,
        "files": done.committed,
        "unchanged": done.unchanged,
        "bytes": bytes,
        "sent_large_bytes": done.large_bytes,
    });
    printer.result(&done.address, &json)
}
