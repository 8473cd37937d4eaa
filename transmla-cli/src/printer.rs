//! All output: results to stdout, everything else to stderr.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

use serde::Serialize;

use crate::bar::{Bar, Unit};
use crate::messages::{self, Kind};
use crate::{flags, table};

/// Form of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// For people.
    Text,
    /// One JSON object.
    Json,
}

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Printer {
    form: Form,
    silent: bool,
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
    pub fn new(form: Form) -> Self {
        Self { form, silent: false }
    }

    /// A printer of plain text.
    pub fn text() -> Self {
        Self::new(Form::Text)
    }

    /// A printer that tells nothing but results: for what is asked on the side.
    pub fn silent() -> Self {
        Self {
            form: Form::Text,
            silent: true,
        }
    }

    /// Prints the result: `text` for people, or `json`.
    pub fn result(&self, text: &str, json: &impl Serialize) -> anyhow::Result<()> {
        let text = messages::result(&visible(text.trim_end()));
        match self.form {
            Form::Text => self.chunk(&format!("{text}\n")),
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

    /// Tells what is going on.
    pub fn note(&self, text: impl std::fmt::Display) {
        self.say(Kind::Note, &text.to_string());
    }

    /// Tells of a step of what takes long, where no bar shows it.
    pub fn step(&self, text: impl std::fmt::Display) {
        self.say(Kind::Step, &text.to_string());
    }

    /// Tells what only those want to know who ask for it.
    pub fn detail(&self, text: impl std::fmt::Display) {
        self.say(Kind::Detail, &text.to_string());
    }

    /// Tells what may not be as expected.
    pub fn warn(&self, text: impl std::fmt::Display) {
        self.say(Kind::Warning, &format!("warning: {text}"));
    }

    fn say(&self, kind: Kind, text: &str) {
        if !self.silent {
            say(kind, text);
        }
    }

    /// The progress of something, which is cleared when it is dropped.
    pub fn bar(&self, label: &str) -> Bar {
        Bar::new(visible(label).into_owned(), Unit::Work)
    }

    /// A clock for something of which it is not known how long it takes, which is cleared when it is dropped.
    pub fn wait(&self, label: &str) -> Bar {
        Bar::new(visible(label).into_owned(), Unit::Unknown)
    }

    /// The progress of a file that comes from somewhere or goes there.
    pub fn transfer(&self, label: &str) -> Bar {
        Bar::new(visible(label).into_owned(), Unit::Bytes)
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
    say(Kind::Error, &describe(error));
}

fn say(kind: Kind, text: &str) {
    messages::say(kind, &visible(text));
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

/// Where the same command would go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoOn {
    /// Layers or steps that are kept.
    pub kept: usize,
    /// All of them.
    pub all: usize,
    /// What they are.
    pub unit: &'static str,
}

/// Says that a signal ended the program, and at which layer or step the same command would go on.
pub fn interrupted(go_on: Option<GoOn>) {
    messages::leave_line();
    say(Kind::Error, &describe_interruption(go_on));
}

fn describe_interruption(go_on: Option<GoOn>) -> String {
    match go_on {
        // Nothing but the rest of the files and the evaluation is left.
        Some(GoOn { kept, all, unit }) if kept >= all => format!(
            "interrupted; all {} are kept: run the same command again for the rest",
            table::plural(all, unit)
        ),
        Some(GoOn { kept, all, unit }) => format!(
            "interrupted; run the same command again to go on at {unit} {}/{all}",
            kept + 1
        ),
        None => "interrupted".to_owned(),
    }
}

/// An error with its causes on one line, each said once.
pub fn flat(error: &anyhow::Error) -> String {
    causes(error).join(": ")
}

/// The messages of an error and of its causes, without those that one before quotes.
fn causes(error: &anyhow::Error) -> Vec<String> {
    let hint = error.downcast_ref::<Hint>();
    let mut said: Vec<String> = Vec::new();
    for message in error.chain().skip(usize::from(hint.is_some())).map(flags::message) {
        if !said.iter().any(|before| before.contains(&message)) {
            said.push(message);
        }
    }
    said
}

fn describe(error: &anyhow::Error) -> String {
    let mut text = format!("error: {}", causes(error).join("\n  caused by: "));
    if let Some(hint) = error.downcast_ref::<Hint>() {
        text.push_str(&format!("\n  hint: {hint}"));
    }
    text
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
    fn interruptions_say_where_to_go_on() {
        let said = |kept| {
            let (all, unit) = (30, "layer");
            describe_interruption(Some(GoOn { kept, all, unit }))
        };
        assert_eq!(
            said(11),
            "interrupted; run the same command again to go on at layer 12/30"
        );
        assert!(said(30).contains("all 30 layers are kept"));
        assert_eq!(describe_interruption(None), "interrupted");
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
