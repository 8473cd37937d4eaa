//! What happens when a signal asks the program to end: what is unfinished is removed, and the exit code names the signal.
//!
//! A thread waits for SIGINT (Ctrl-C), SIGTERM and SIGHUP. The conversion itself is not asked to stop, which could take it as long as
//! a layer takes: the libraries know what they have begun to write, and that is removed under their feet. On other systems
//! than Unix a process ends as the system has it, and the next conversion to the same place clears up.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use tempfile::TempDir;
use transmla_core::checkpoint::remove_unfinished;

use crate::printer;

/// Whether the program is ending.
static ENDING: AtomicBool = AtomicBool::new(false);

/// The layer at which the same command would go on; 0 if from the start.
static NEXT_LAYER: AtomicUsize = AtomicUsize::new(0);

/// Folders to remove.
static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// A temporary folder that a signal does not leave behind either.
pub fn temporary_folder() -> std::io::Result<TempDir> {
    let folder = tempfile::Builder::new().prefix("transmla-").tempdir()?;
    let mut all = TEMPORARY.lock().unwrap_or_else(PoisonError::into_inner);
    all.push(folder.path().to_path_buf());
    Ok(folder)
}

/// All layers before this one are kept, should the conversion be ended; 0 once there are none.
pub fn would_go_on_at(layer: usize) {
    NEXT_LAYER.store(layer, Ordering::Relaxed);
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
        if let Some(signal) = signals.forever().next() {
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
    printer::interrupted(match NEXT_LAYER.load(Ordering::Relaxed) {
        0 => None,
        layer => Some(layer),
    });
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
    fn reads_which_signals_are_ignored() {
        let status = "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\tffff\n";
        let ignored: Vec<i32> = (1..=15).filter(|signal| is_in_mask(status, *signal)).collect();
        assert_eq!(ignored, [1, 13]);
        assert!(!is_in_mask("Name:\tx\n", 1));
    }
}
