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
pub(super) fn paint_message(text: &str) -> String {
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
    with_title(painted, |title| style(title).for_stderr().bold().to_string())
}

/// What a result has that nobody should overlook.
const ALARMS: [&str; 3] = ["WRONG:", "WARNING ", "FAIL "];

/// A result with its colours.
pub(super) fn paint_result(text: &str) -> String {
    let line = |line: &str| match ALARMS.iter().find_map(|alarm| Some((alarm, line.split_once(alarm)?))) {
        Some((alarm, (before, after))) => format!("{before}{}{after}", style(alarm).red().bold()),
        None => line.to_owned(),
    };
    let painted: Vec<String> = text.split('\n').map(line).collect();
    with_title(painted, |title| style(title).bold().to_string())
}

/// The lines with the first set apart, if the others are indented below it.
fn with_title(mut lines: Vec<String>, paint: impl Fn(&str) -> String) -> String {
    let is_title = lines.len() > 1 && !lines[0].starts_with([' ', '\u{1b}']) && lines[1].starts_with("  ");
    if is_title {
        lines[0] = paint(&lines[0]);
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn titles_stand_above_indented_lines() {
        let title = |text: &str| {
            with_title(text.split('\n').map(str::to_owned).collect(), |title| {
                format!("<{title}>")
            })
        };
        assert_eq!(title("a\n  b"), "<a>\n  b");
        assert_eq!(title("a\nb"), "a\nb");
        assert_eq!(title("a"), "a");
        assert_eq!(title("  a\n  b"), "  a\n  b");
    }
}
