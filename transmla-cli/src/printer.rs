//! All output: results to stdout, everything else to stderr.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use crate::flags;

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    form: Form,
    quiet: bool,
}

/// Nobody reads stdout any more.
#[derive(Debug)]
pub struct Closed;

impl std::fmt::Display for Closed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("stdout is closed")
    }
}

impl std::error::Error for Closed {}

impl Printer {
    /// A printer of results in one form.
    pub fn new(form: Form, quiet: bool) -> Self {
        Self { form, quiet }
    }

    /// A printer of plain text.
    pub fn text(quiet: bool) -> Self {
        Self::new(Form::Text, quiet)
    }

    /// Prints the result: `text` for people, or `json`.
    pub fn result(&self, text: &str, json: &impl Serialize) -> anyhow::Result<()> {
        match self.form {
            Form::Text => self.chunk(&format!("{}\n", visible(text.trim_end()))),
            Form::Json => self.chunk(&format!("{}\n", visible_json(&serde_json::to_string_pretty(json)?))),
        }
    }

    /// Prints a result that is nothing more than a note for people: as JSON, or not at all.
    pub fn data(&self, json: &impl Serialize) -> anyhow::Result<()> {
        match self.form {
            Form::Text => Ok(()),
            Form::Json => self.result("", json),
        }
    }

    /// Prints a piece of what a model writes at once: as it is into files, and without what would steer a terminal to one.
    pub fn written(&self, text: &str) -> anyhow::Result<()> {
        match std::io::stdout().is_terminal() {
            true => self.chunk(&text.replace(steers, "")),
            false => self.chunk(text),
        }
    }

    /// Prints a piece of a result at once, as it is.
    pub fn chunk(&self, text: &str) -> anyhow::Result<()> {
        let mut stdout = std::io::stdout().lock();
        let printed = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
        printed.map_err(|error| match error.kind() {
            std::io::ErrorKind::BrokenPipe => Closed.into(),
            _ => anyhow::Error::new(error).context("cannot write to stdout"),
        })
    }

    /// Whether the result is for people.
    pub fn is_text(&self) -> bool {
        self.form == Form::Text
    }

    /// Whether somebody watches the progress.
    pub fn shows_progress(&self) -> bool {
        self.is_text() && !self.quiet && std::io::stderr().is_terminal()
    }

    /// Tells what is going on.
    pub fn note(&self, text: impl std::fmt::Display) {
        if !self.quiet {
            to_stderr(&visible(&text.to_string()));
        }
    }

    /// Tells what may not be as expected.
    pub fn warn(&self, text: impl std::fmt::Display) {
        self.note(format!("warning: {text}"));
    }

    /// A progress bar; hidden unless people watch.
    pub fn bar(&self, label: &str) -> ProgressBar {
        let target = if self.shows_progress() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let style = ProgressStyle::with_template("{msg:32} {bar:20} {percent:>3}%  {elapsed} (left {eta})");
        let bar = ProgressBar::with_draw_target(None, target).with_message(visible(label).into_owned());
        // The template is fixed; were it wrong, the default style would do.
        bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }
}

/// Context of an error that says what to do about it.
#[derive(Debug)]
pub struct Hint(pub &'static str);

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

/// Prints an error with its causes, leaving out those that it already quotes, and the hint, if it comes with one.
pub fn error(error: &anyhow::Error) {
    to_stderr(&visible(&describe(error)));
}

/// Whether a character would move a terminal's cursor, change its colours or title, or turn the direction of its text.
fn steers(character: char) -> bool {
    let breaks_lines = matches!(character, '\n' | '\t');
    let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    character.is_control() && !breaks_lines || turns
}

/// A text whose names, from files and servers, cannot steer a terminal: `\u{1b}` instead of an escape.
fn visible(text: &str) -> Cow<'_, str> {
    escaped(text, |character| character.escape_debug().to_string())
}

/// The same for JSON, where such characters may stand in strings alone.
fn visible_json(text: &str) -> Cow<'_, str> {
    escaped(text, |character| format!("\\u{:04x}", u32::from(character)))
}

fn escaped(text: &str, escape: impl Fn(char) -> String) -> Cow<'_, str> {
    if !text.contains(steers) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        match steers(character) {
            true => out.push_str(&escape(character)),
            false => out.push(character),
        }
    }
    Cow::Owned(out)
}

/// Says that a signal ended the program, and at which layer the same command would go on.
pub fn interrupted(next_layer: Option<usize>) {
    // A progress bar may stand on this line.
    let start = if std::io::stderr().is_terminal() { "\n" } else { "" };
    to_stderr(&match next_layer {
        Some(layer) => format!("{start}interrupted; run the same command again to go on at layer {layer}"),
        None => format!("{start}interrupted"),
    });
}

fn describe(error: &anyhow::Error) -> String {
    let hint = error.downcast_ref::<Hint>();
    let mut messages = error.chain().skip(usize::from(hint.is_some())).map(flags::message);
    let mut said = messages.next().unwrap_or_default();
    let mut text = format!("error: {said}");
    for cause in messages {
        if !said.contains(&cause) {
            text.push_str(&format!("\n  caused by: {cause}"));
            said.push_str(&cause);
        }
    }
    if let Some(hint) = hint {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
}

fn to_stderr(text: &str) {
    // Where stderr is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn causes_are_said_once_and_hints_last() {
        let plain = anyhow!("no such file").context("cannot read x: no such file");
        assert_eq!(describe(&plain), "error: cannot read x: no such file");
        let hinted = anyhow!("no route").context("cannot load x").context(Hint("use y"));
        assert_eq!(
            describe(&hinted),
            "error: cannot load x\n  caused by: no route\n  hint: use y"
        );
    }

    #[test]
    fn names_do_not_steer_terminals() {
        let name = "a\u{1b}[2J\u{9b}1m\r\u{7}b\u{202e}c\td\né…";
        assert_eq!(visible(name), "a\\u{1b}[2J\\u{9b}1m\\r\\u{7}b\\u{202e}c\td\né…");
        let json = serde_json::to_string_pretty(&serde_json::json!({ "name": name })).unwrap();
        let shown = visible_json(&json);
        assert!(!shown.contains(steers), "{shown:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap()["name"], name);
        assert!(matches!(visible("plain ü\n"), Cow::Borrowed(_)));
        assert_eq!(name.replace(steers, ""), "a[2J1mbc\td\né…");
    }
}
