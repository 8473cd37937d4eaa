//! Downloads from the hub and uploads to it, as people see them.

use std::sync::{Mutex, PoisonError};

use indicatif::ProgressBar;
use transmla_core::hub::{HubEvent, HubObserver};

use crate::printer::Printer;

/// Draws a bar for each file, where somebody watches, and says what goes otherwise than hoped.
#[derive(Debug)]
pub struct Downloads {
    printer: Printer,
    bar: Mutex<Option<ProgressBar>>,
}

impl Downloads {
    /// Told by the hub client, prints by the printer.
    pub fn new(printer: &Printer) -> Self {
        Self {
            printer: *printer,
            bar: Mutex::new(None),
        }
    }
}

impl Downloads {
    /// A bar for a file.
    fn begin(&self, what: &str, file: &str, bytes: Option<u64>) -> ProgressBar {
        let bar = self.printer.bar(&format!("{what} {file}"));
        if let Some(bytes) = bytes {
            bar.set_length(bytes);
        }
        bar
    }
}

impl HubObserver for Downloads {
    fn event(&self, event: &HubEvent<'_>) {
        let mut bar = self.bar.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            HubEvent::Started { file, bytes } => *bar = Some(self.begin("Fetch", file, *bytes)),
            HubEvent::Reading { file, bytes } => *bar = Some(self.begin("Read", file, Some(*bytes))),
            HubEvent::Sending { file, bytes } => *bar = Some(self.begin("Send", file, Some(*bytes))),
            HubEvent::Progress { position } => {
                if let Some(bar) = &*bar {
                    bar.set_position(*position);
                }
            }
            HubEvent::Finished { .. } => {
                if let Some(bar) = bar.take() {
                    bar.finish_and_clear();
                }
            }
            HubEvent::Waiting { file } => self
                .printer
                .note(format!("Waiting for another process that fetches {file}")),
            HubEvent::Retrying { what, problem } => self.printer.warn(format!("{what}: {problem}; trying again")),
            HubEvent::FromCache { repo, problem } => self.printer.warn(format!(
                "hub repository {repo}: {problem}; the copy in the cache is used, which may be an old one"
            )),
            _ => {}
        }
    }
}
