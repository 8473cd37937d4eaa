//! Colours.

use clap::ValueEnum;
use console::{Style, style};

/// Whether colours are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// On terminals, unless NO_COLOR or CLICOLOR=0 is set; elsewhere with CLICOLOR_FORCE=1
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

impl ColourChoice {
    /// Settles it for stdout and stderr, bars included.
    pub(super) fn apply(self) {
        let on = match self {
            Self::Auto => return,
            Self::Always => true,
            Self::Never => false,
        };
        console::set_colors_enabled(on);
        console::set_colors_enabled_stderr(on);
    }
}

/// What starts a message and is told apart by its colour.
fn starts() -> [(&'static str, Style); 4] {
    let bold = Style::new().bold().for_stderr();
    [
        ("error:", bold.clone().red()),
        ("warning:", bold.clone().yellow()),
        ("note:", bold.clone().cyan()),
        ("  hint:", bold.cyan()),
    ]
}

/// A message with its colours.
pub(super) fn paint_message(text: &str, titled: bool) -> String {
    let starts = starts();
    let line = |line: &str| {
        let known = starts
            .iter()
            .find_map(|(start, style)| Some((style, start, line.strip_prefix(start)?)));
        match known {
            Some((style, start, rest)) => format!("{}{rest}", style.apply_to(start)),
            None => line.to_owned(),
        }
    };
    let painted: Vec<String> = text.split('\n').map(line).collect();
    with_title(painted, titled, |title| style(title).for_stderr().bold().to_string())
}

/// What a result has that nobody should overlook.
const ALARMS: [&str; 3] = ["WRONG:", "WARNING ", "FAIL "];

/// A result with its colours.
pub(super) fn paint_result(text: &str, titled: bool) -> String {
    let line = |line: &str| match ALARMS.iter().find_map(|alarm| Some((alarm, line.split_once(alarm)?))) {
        Some((alarm, (before, after))) => format!("{before}{}{after}", style(alarm).red().bold()),
        None => line.to_owned(),
    };
    let painted: Vec<String> = text.split('\n').map(line).collect();
    with_title(painted, titled, |title| style(title).bold().to_string())
}

/// Whether a text has a first line that stands above others, which are indented.
pub(super) fn has_title(text: &str) -> bool {
    let mut lines = text.split('\n');
    let first = lines.next().unwrap_or_default();
    let starts = starts();
    let is_message = starts.iter().any(|(start, _)| first.starts_with(start));
    !is_message && !first.starts_with(' ') && lines.next().is_some_and(|second| second.starts_with("  "))
}

/// The lines with the first set apart, if it is a title.
fn with_title(mut lines: Vec<String>, titled: bool, paint: impl Fn(&str) -> String) -> String {
    if let (true, Some(first)) = (titled, lines.first_mut()) {
        *first = paint(first);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stand_above_indented_lines() {
        let titled = ["a\n  b", "a\nb", "a", "  a\n  b", "error: a\n  caused by: b"].map(has_title);
        assert_eq!(titled, [true, false, false, false, false]);
        let lines = vec!["a".to_owned(), "  b".to_owned()];
        assert_eq!(
            with_title(lines.clone(), true, |title| format!("<{title}>")),
            "<a>\n  b"
        );
        assert_eq!(with_title(lines, false, |title| format!("<{title}>")), "a\n  b");
    }
}
