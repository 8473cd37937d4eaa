//! What happens when a signal asks the program to end: what is unfinished is removed, and the exit code names the signal.
//!
//! A thread waits for SIGINT (Ctrl-C), SIGTERM and SIGHUP. The conversion itself is not asked to stop, which could take it as long as
//! a layer takes: the libraries know what they have begun to write, and that is removed under their feet. On other systems
//! than Unix a process ends as the system has it, and the next conversion to the same place clears up.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use transmla_core::checkpoint::remove_unfinished;

use crate::printer::{self, GoOn};

/// Whether the program is ending.
static ENDING: AtomicBool = AtomicBool::new(false);

/// What is kept for the same command, should this one be ended.
static GO_ON: Mutex<Option<GoOn>> = Mutex::new(None);

/// Whether a reply is being written that SIGINT stops instead of the program.
static REPLYING: AtomicBool = AtomicBool::new(false);

/// Whether SIGINT has come since the reply began.
static STOPPED: AtomicBool = AtomicBool::new(false);

/// Folders to remove.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder that a signal does not leave behind either.
pub fn temporary_folder() -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("transmla-").tempdir()?;
    let mut all = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(folder.path().to_path_buf());
    Ok(folder)
}

/// What would be kept for the same command, should this one be ended now.
pub fn would_go_on(go_on: Option<GoOn>) {
    *GO_ON.lock().unwrap_or_else(PoisonError::into_inner) = go_on;
}

/// While it lives, the first SIGINT stops a reply and not the program.
pub struct Reply(());

impl Reply {
    /// A reply begins.
    pub fn begin() -> Self {
        STOPPED.store(false, Ordering::SeqCst);
        REPLYING.store(true, Ordering::SeqCst);
        Self(())
    }

    /// Whether it is to stop.
    pub fn is_stopped(&self) -> bool {
        STOPPED.load(Ordering::SeqCst)
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        REPLYING.store(false, Ordering::SeqCst);
    }
}

/// Whether SIGINT came during a reply that it has not stopped yet; a second one ends the program.
#[cfg_attr(not(unix), expect(dead_code, reason = "called by the thread that waits for signals"))]
fn stops_reply() -> bool {
    REPLYING.load(Ordering::SeqCst) && !STOPPED.swap(true, Ordering::SeqCst)
}

/// Keeps a thread that has failed since a signal came from ending the program in its own way.
pub fn wait_if_ending() {
    while ENDING.load(Ordering::SeqCst) {
        std::thread::park();
    }
}

/// Waits for signals, in a thread of its own.
#[cfg(unix)]
pub fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
    // What is ignored already, by nohup for instance, stays ignored.
    let wanted = [SIGINT, SIGTERM, SIGHUP]
        .into_iter()
        .filter(|signal| !is_ignored(*signal));
    let Ok(mut signals) = signal_hook::iterator::Signals::new(wanted) else {
        return;
    };
    let wait = move || {
        let ends = |signal: &i32| *signal != SIGINT || !stops_reply();
        if let Some(signal) = signals.forever().find(ends) {
            clear_up();
            signal_hook::low_level::exit(128 + signal);
        }
    };
    // Without the thread a signal would do nothing at all: the program is better off without either.
    let _ = std::thread::Builder::new().name("signals".into()).spawn(wait);
}

#[cfg(not(unix))]
pub fn listen() {}

#[cfg_attr(not(unix), expect(dead_code, reason = "called by the thread that waits for signals"))]
fn clear_up() {
    ENDING.store(true, Ordering::SeqCst);
    remove_unfinished();
    let mut all = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    for folder in all.drain(..) {
        let _ = std::fs::remove_dir_all(folder);
    }
    printer::interrupted(*GO_ON.lock().unwrap_or_else(PoisonError::into_inner));
}

/// Whether this process was started with a signal ignored, as Linux tells; elsewhere nothing is known to be.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    std::fs::read_to_string("/proc/self/status").is_ok_and(|status| is_in_mask(&status, signal))
}

#[cfg(unix)]
fn is_in_mask(status: &str, signal: i32) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_stops_a_reply_and_the_second_the_program() {
        assert!(!stops_reply(), "nothing is replied yet");
        let reply = Reply::begin();
        assert!(!reply.is_stopped());
        assert!(stops_reply() && reply.is_stopped());
        assert!(!stops_reply());
        drop(reply);
        assert!(!stops_reply());
        assert!(!Reply::begin().is_stopped());
    }

    #[test]
    fn reads_which_signals_are_ignored() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\tffff\n";
        let ignored: Vec<i32> = (1..=15).filter(|signal| is_in_mask(status, *signal)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_in_mask("Name:\tx\n", 1));
    }
}
