//! The file that gets every message, with its time.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, bail};
use jiff::Timestamp;

/// An open log.
#[derive(Debug)]
pub struct LogFile(Mutex<File>);

impl LogFile {
    /// Opens a file to write behind what is in it, or begins one.
    ///
    /// # Errors
    /// It cannot be written, or is no regular file.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        if path.metadata().is_ok_and(|data| !data.is_file()) {
            bail!("cannot write --log-file {shown}: it is not a regular file");
        }
        let file = File::options().create(true).append(true).open(path);
        let file = file.with_context(|| format!("cannot write --log-file {shown}"))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Adds a message, each line of it with the time.
    pub fn write(&self, text: &str) {
        let lines = stamped(text, Timestamp::now());
        let mut file = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A full disk is no reason to lose the work that is logged.
        let _ = file.write_all(lines.as_bytes());
    }
}

fn stamped(text: &str, now: Timestamp) -> String {
    let time = now.strftime("%FT%TZ");
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| format!("{time} {line}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_the_time() {
        let now = Timestamp::from_second(1_700_000_000).unwrap();
        assert_eq!(
            stamped("a\n\n  b", now),
            "2023-11-14T22:13:20Z a\n2023-11-14T22:13:20Z   b\n"
        );
        assert_eq!(stamped("", now), "");
    }
}
