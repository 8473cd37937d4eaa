//! Tips for those who use an option as earlier versions had it.

use clap::Error;
use clap::builder::StyledStr;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// `--format text` and `--format json` chose what is printed.
const FORM_OF_RESULTS: &str = "to print the result as JSON, use '--json'; without it, the result is text";

/// `--json FILE` was an option of sweeps.
const FILE_OF_FIGURES: &str = "'--json' prints JSON; the file for the figures of a sweep is named by '--figures'";

/// The same error of the command line, with a tip if it comes from an option that has changed.
pub fn with_tip(mut error: Error) -> Error {
    if let Some(tip) = tip(&error) {
        // No other option is what was meant.
        error.remove(ContextKind::SuggestedArg);
        let tips = ContextValue::StyledStrs(vec![StyledStr::from(tip)]);
        error.insert(ContextKind::Suggested, tips);
    }
    error
}

fn tip(error: &Error) -> Option<&'static str> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let (argument, value) = (text(ContextKind::InvalidArg), text(ContextKind::InvalidValue));
    let was_printed = |value: &str| value.split(',').any(|form| matches!(form, "text" | "json"));
    match error.kind() {
        ErrorKind::UnknownArgument if argument == "--format" => Some(FORM_OF_RESULTS),
        ErrorKind::InvalidValue if argument.starts_with("--format ") && was_printed(value) => Some(FORM_OF_RESULTS),
        ErrorKind::UnknownArgument if argument.ends_with(".json") => Some(FILE_OF_FIGURES),
        _ => None,
    }
}
