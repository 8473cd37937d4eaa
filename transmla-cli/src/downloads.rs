//! Downloads from the hub and uploads to it, as people see them.

use std::sync::{Mutex, PoisonError};

use transmla_core::hub::{HubEvent, HubObserver};

use crate::bar::Bar;
use crate::printer::Printer;
use crate::table;

/// Draws a bar for each file, where somebody watches, and says what goes otherwise than hoped.
#[derive(Debug)]
pub struct Downloads {
    printer: Printer,
    moving: Mutex<Option<Moving>>,
}

impl Downloads {
    /// Told by the hub client, prints by the printer.
    pub fn new(printer: &Printer) -> Self {
        Self {
            printer: *printer,
            moving: Mutex::new(None),
        }
    }
}

/// A file under way, and its size where that is known.
type Moving = (Bar, Option<u64>);

impl Downloads {
    /// A bar for a file, in the place of that of the one before.
    fn begin(&self, before: Option<Moving>, what: &str, file: &str, bytes: Option<u64>) -> Option<Moving> {
        drop(before);
        let size = bytes.map_or_else(String::new, |bytes| format!(", {}", table::bytes(bytes)));
        self.printer.step(format!("{what} {file}{size}"));
        Some((self.printer.transfer(&format!("{what} {file}")), bytes))
    }
}

impl HubObserver for Downloads {
    fn event(&self, event: &HubEvent<'_>) {
        let mut moving = self.moving.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            HubEvent::Started { file, bytes } => *moving = self.begin(moving.take(), "Fetch", file, *bytes),
            HubEvent::Reading { file, bytes } => *moving = self.begin(moving.take(), "Read", file, Some(*bytes)),
            HubEvent::Sending { file, bytes } => *moving = self.begin(moving.take(), "Send", file, Some(*bytes)),
            HubEvent::Progress { position } => {
                if let Some((bar, Some(bytes))) = &mut *moving {
                    bar.advance(*position, *bytes);
                }
            }
            HubEvent::Finished { .. } => *moving = None,
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
