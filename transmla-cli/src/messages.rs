//! What the command says beside its result: which messages are shown, in what colours, how wide, and the log file that gets all
//! of them.

mod layout;
mod log_file;
mod paint;

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, OnceLock, PoisonError};

use indicatif::ProgressBar;

use self::layout::fold;
pub use self::layout::shortened;
pub use self::log_file::LogFile;
pub use self::paint::ColourChoice;
use self::paint::{has_title, paint_message, paint_result};

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Errors alone.
    Quiet,
    /// Notes, warnings and progress.
    #[default]
    Normal,
    /// A line for each step too, and what helps to find out why something is as it is.
    Verbose,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Why the command failed.
    Error,
    /// What may not be as expected.
    Warning,
    /// What is going on.
    Note,
    /// A step of what takes long: shown where no bar shows it.
    Step,
    /// For those who want to know more.
    Detail,
}

/// What a command line says about messages.
#[derive(Debug, Default)]
pub struct Settings {
    /// How much is said.
    pub level: Level,
    /// Whether colours are used.
    pub colour: ColourChoice,
    /// Gets every message, if there is one.
    pub log: Option<LogFile>,
}

static SETTINGS: OnceLock<Settings> = OnceLock::new();

/// The bar that is being drawn; what is printed goes above it.
static BAR: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Columns where a terminal does not tell.
const COLUMNS: usize = 80;

/// Settles what is shown for the rest of the program, which has said nothing so far.
pub fn settle(settings: Settings) {
    settings.colour.apply();
    // There is one command line.
    let _ = SETTINGS.set(settings);
}

/// Tells the log what was called.
pub fn begin() {
    if let Some(log) = &settings().log {
        let words: Vec<String> = std::env::args_os()
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        log.write(&format!(
            "transmla {}: {}",
            env!("CARGO_PKG_VERSION"),
            words.join(" ").escape_debug()
        ));
    }
}

fn settings() -> &'static Settings {
    SETTINGS.get_or_init(Settings::default)
}

/// Whether somebody watches progress.
pub fn shows_bars() -> bool {
    settings().level > Level::Quiet && std::io::stderr().is_terminal()
}

/// Tells something, to whom it concerns.
pub fn say(kind: Kind, text: &str) {
    if let Some(log) = &settings().log {
        log.write(text);
    }
    let watched = std::io::stderr().is_terminal();
    if !is_shown(kind, settings().level, watched) {
        return;
    }
    let folded = match watched {
        true => fold(text, columns(&console::Term::stderr())),
        false => text.to_owned(),
    };
    let text = paint_message(&folded, has_title(text));
    above_bar(|| {
        // Where stderr is closed there is nobody to tell.
        let _ = writeln!(std::io::stderr().lock(), "{text}");
    });
}

fn is_shown(kind: Kind, level: Level, watched: bool) -> bool {
    match kind {
        Kind::Error => true,
        Kind::Warning | Kind::Note => level >= Level::Normal,
        Kind::Step => level >= Level::Verbose || level == Level::Normal && !watched,
        Kind::Detail => level >= Level::Verbose,
    }
}

/// A result for people as it goes to stdout: as wide as a terminal, with its colours. The log gets it too.
pub fn result(text: &str) -> String {
    if let Some(log) = &settings().log {
        log.write(text);
    }
    let folded = match std::io::stdout().is_terminal() {
        true => fold(text, columns(&console::Term::stdout())),
        false => text.to_owned(),
    };
    paint_result(&folded, has_title(text))
}

fn columns(terminal: &console::Term) -> usize {
    let told = terminal.size_checked().map(|(_, columns)| usize::from(columns));
    told.filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// Columns of the terminal that bars are drawn on.
pub fn bar_columns() -> usize {
    columns(&console::Term::stderr())
}

/// Takes a bar for the one that is drawn.
pub fn draw(bar: &ProgressBar) {
    *BAR.lock().unwrap_or_else(PoisonError::into_inner) = Some(bar.clone());
}

/// Removes the bar that is drawn, if there is one.
pub fn clear_bar() {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Leaves the line that a terminal is at, where it may hold a prompt or part of an answer, and removes a bar.
pub fn leave_line() {
    let has_bar = BAR.lock().unwrap_or_else(PoisonError::into_inner).is_some();
    clear_bar();
    if !has_bar && std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr().lock());
    }
}

fn above_bar(print: impl FnOnce()) {
    let bar = BAR.lock().unwrap_or_else(PoisonError::into_inner);
    match &*bar {
        Some(bar) => bar.suspend(print),
        None => print(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_decide_what_is_shown() {
        let shown = |level, watched| {
            let kinds = [Kind::Error, Kind::Warning, Kind::Note, Kind::Step, Kind::Detail];
            kinds.map(|kind| is_shown(kind, level, watched))
        };
        assert_eq!(shown(Level::Quiet, false), [true, false, false, false, false]);
        assert_eq!(shown(Level::Normal, true), [true, true, true, false, false]);
        assert_eq!(shown(Level::Normal, false), [true, true, true, true, false]);
        assert_eq!(shown(Level::Verbose, true), [true; 5]);
    }
}
