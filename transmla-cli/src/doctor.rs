//! `transmla doctor`: whether this machine and this binary are ready, and what to do where they are not.

mod checks;
mod finding;
mod folders;
mod hub;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use self::finding::{Finding, State};
use crate::options::output::OutputArguments;
use crate::printer::Printer;
use crate::system;
use crate::table::plural;

/// Check backends, devices, memory, folders and hub access, and say how to mend what is missing.
///
/// Nothing is asked of the network without --online, and a token is never shown. The exit code is 1 if a check fails; warnings
/// do not count.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  transmla doctor\n  transmla doctor --online --json")]
pub struct DoctorArguments {
    /// Ask the hub too, and whether it knows the token
    #[arg(long)]
    online: bool,

    #[command(flatten)]
    output: OutputArguments,
}

/// All findings, for programs.
#[derive(Debug, Serialize)]
struct Report {
    version: &'static str,
    system: String,
    warnings: usize,
    failures: usize,
    checks: Vec<Finding>,
}

pub fn run(arguments: &DoctorArguments) -> anyhow::Result<()> {
    let printer = Printer::from(&arguments.output);
    let mut findings = vec![checks::processor(&system::processor())];
    findings.extend(checks::backends());
    findings.push(checks::memory(system::memory()));
    findings.extend(folders::check());
    findings.extend(hub::check(arguments.online));
    let count = |state| findings.iter().filter(|finding| finding.state == state).count();
    let report = Report {
        version: env!("CARGO_PKG_VERSION"),
        system: format!("{} {}", std::env::consts::ARCH, std::env::consts::OS),
        warnings: count(State::Warn),
        failures: count(State::Fail),
        checks: findings,
    };
    printer.result(&text(&report), &report)?;
    if report.failures > 0 {
        let names: Vec<&str> = failed(&report).collect();
        bail!("{} failed: {}", plural(report.failures, "check"), names.join(", "));
    }
    Ok(())
}

fn failed(report: &Report) -> impl Iterator<Item = &str> {
    let failed = report.checks.iter().filter(|finding| finding.state == State::Fail);
    failed.map(|finding| finding.name)
}

/// Columns of a line.
const WIDTH: usize = 80;

/// For people: a line or more for each check, with what to do indented below.
fn text(report: &Report) -> String {
    let mut text = format!("transmla {}, {}\n", report.version, report.system);
    let widest = report
        .checks
        .iter()
        .map(|finding| finding.name.len())
        .max()
        .unwrap_or(0);
    let indent = " ".repeat(widest + 10);
    for finding in &report.checks {
        let state = match finding.state {
            State::Ok => "ok  ",
            State::Warn => "warn",
            State::Fail => "FAIL",
        };
        let fix = finding.fix.iter().map(|fix| format!("fix: {fix}"));
        let said = std::iter::once(finding.found.clone()).chain(fix);
        let lines: Vec<String> = said.flat_map(|said| wrapped(&said, WIDTH - indent.len())).collect();
        let lines = lines.join(&format!("\n{indent}"));
        text.push_str(&format!("  {state}  {:widest$}  {lines}\n", finding.name));
    }
    let said = match (report.failures, report.warnings) {
        (0, 0) => "All is well.".to_owned(),
        (0, warnings) => format!("It works, with {}.", plural(warnings, "warning")),
        (failures, warnings) => format!("{} and {}.", plural(failures, "failure"), plural(warnings, "warning")),
    };
    text + &said
}

/// A text in lines of so many columns, if its words allow it.
fn wrapped(text: &str, columns: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        if let Some(line) = lines.last_mut() {
            if line.is_empty() {
                line.push_str(word);
                continue;
            }
            if line.chars().count() + 1 + word.chars().count() <= columns {
                line.push(' ');
                line.push_str(word);
                continue;
            }
        }
        lines.push(word.to_owned());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_as_wide_as_a_terminal() {
        let report = Report {
            version: "1.2.3",
            system: "x86_64 linux".into(),
            warnings: 1,
            failures: 0,
            checks: vec![
                Finding::ok("processor", "2 threads"),
                Finding::warn("hub cache", "word ".repeat(30).trim(), "other ".repeat(20).trim()),
            ],
        };
        let text = text(&report);
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH), "{text}");
        assert!(text.contains("  ok    processor  2 threads\n"), "{text}");
        assert!(text.contains("\n                   fix: other other"), "{text}");
        assert_eq!(text.matches("word").count(), 30);
        assert!(text.ends_with("It works, with 1 warning."), "{text}");
    }

    #[test]
    fn a_long_word_has_a_line_of_its_own() {
        assert_eq!(wrapped("a /very/long/path b", 6), ["a", "/very/long/path", "b"]);
        assert_eq!(wrapped("", 6), [""]);
    }
}
