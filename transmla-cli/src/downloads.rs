//! Downloads from the hub, as people see them.

use std::sync::{Mutex, PoisonError};

use transmla_core::hub::{HubEvent, HubObserver};

use crate::bar::Bar;
use crate::printer::Printer;
use crate::table;

/// Draws a bar for each file, where somebody watches, and says what goes otherwise than hoped.
#[derive(Debug)]
pub struct Downloads {
    printer: Printer,
    fetching: Mutex<Option<(Bar, Option<u64>)>>,
}

impl Downloads {
    /// Told by the hub client, prints by the printer.
    pub fn new(printer: &Printer) -> Self {
        Self {
            printer: *printer,
            fetching: Mutex::new(None),
        }
    }
}

impl HubObserver for Downloads {
    fn event(&self, event: &HubEvent<'_>) {
        let mut fetching = self.fetching.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            HubEvent::Started { file, bytes } => {
                // The one before is cleared first.
                *fetching = None;
                let size = bytes.map_or_else(String::new, |bytes| format!(", {}", table::bytes(bytes)));
                self.printer.step(format!("Fetch {file}{size}"));
                *fetching = Some((self.printer.download(&format!("Fetch {file}")), *bytes));
            }
            HubEvent::Progress { position } => {
                if let Some((bar, Some(bytes))) = &mut *fetching {
                    bar.advance(*position, *bytes);
                }
            }
            HubEvent::Finished { .. } => *fetching = None,
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
