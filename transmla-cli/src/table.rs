//! Aligned lines, and numbers for people.

use std::collections::BTreeMap;

use transmla_core::{CacheFormat, ModelConfig};

/// Lines of a label and its values.
#[derive(Debug, Default)]
pub struct Table {
    title: String,
    rows: Vec<(String, String)>,
}

impl Table {
    /// An empty table with a line above it.
    pub fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            rows: Vec::new(),
        }
    }

    /// Adds a line; further lines of the same label have none.
    pub fn row(&mut self, label: &str, value: impl Into<String>) -> &mut Self {
        self.rows.push((label.to_owned(), value.into()));
        self
    }

    /// Adds a command, which is copied as it stands: where it is long, its lines end as a shell wants it.
    pub fn command(&mut self, label: &str, command: &str) -> &mut Self {
        let columns = COLUMNS - 4 - self.label_width().max(label.chars().count());
        for (index, line) in continued(command, columns).into_iter().enumerate() {
            self.row(if index == 0 { label } else { "" }, line);
        }
        self
    }

    fn label_width(&self) -> usize {
        let labels = self.rows.iter().map(|(label, _)| label.chars().count());
        labels.max().unwrap_or(0)
    }
}

/// Bytes of a token in a layer's cache by format, scales included; those that the model's cache can have.
pub fn bytes_by_format(config: &ModelConfig) -> BTreeMap<String, usize> {
    let of = |format: &CacheFormat| Some((format.to_string(), format.bytes_per_token(config).ok()?));
    CacheFormat::ALL.iter().filter_map(of).collect()
}

/// The same for people, those with 16 bits and less: `320 bytes in bf16, 194 in int8, 136 in int4`.
pub fn token_bytes(config: &ModelConfig) -> String {
    let found = bytes_by_format(config);
    let mut parts: Vec<String> = Vec::new();
    for name in ["bf16", "int8", "int4"] {
        if let Some(bytes) = found.get(name) {
            let unit = if parts.is_empty() { " bytes" } else { "" };
            parts.push(format!("{bytes}{unit} in {name}"));
        }
    }
    parts.join(", ")
}

/// Columns of a terminal as it was made.
const COLUMNS: usize = 80;

/// A command in lines of so many columns, as far as its options allow it, which a shell reads as one.
fn continued(command: &str, columns: usize) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in command.split(" --") {
        match parts.last_mut() {
            // What is quoted stays together.
            Some(last) if last.matches('\'').count() % 2 == 1 => last.push_str(&format!(" --{part}")),
            Some(_) => parts.push(format!("--{part}")),
            None => parts.push(part.to_owned()),
        }
    }
    let mut lines: Vec<String> = Vec::new();
    for part in parts {
        match lines.last_mut() {
            Some(line) if line.chars().count() + part.chars().count() + 3 <= columns => {
                line.push_str(&format!(" {part}"));
            }
            Some(line) => {
                line.push_str(" \\");
                lines.push(format!("  {part}"));
            }
            None => lines.push(part),
        }
    }
    lines
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)?;
        let width = self.label_width();
        for (label, value) in &self.rows {
            write!(f, "\n  {label:width$}  {value}")?;
        }
        Ok(())
    }
}

/// Bytes, in the unit that fits.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    let mut number = count as f64;
    let mut unit = "bytes";
    for larger in UNITS {
        if number < 1024.0 {
            break;
        }
        (number, unit) = (number / 1024.0, larger);
    }
    match unit {
        "bytes" => format!("{count} bytes"),
        _ => format!("{number:.1} {unit}"),
    }
}

/// A duration, to three digits or so.
pub fn seconds(duration: f64) -> String {
    match duration {
        short if short < 10.0 => format!("{short:.2} s"),
        medium if medium < 119.95 => format!("{medium:.1} s"),
        long => format!("{} min {} s", long.round() as u64 / 60, long.round() as u64 % 60),
    }
}

/// A duration that is not known to the second: `5 s`, `40 s`, `4 min`, `1 h 5 min`, `12 h`.
pub fn about(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    // Rounded before it is cut into units, so that no part of it is 60.
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        short if short < 19.5 => format!("{:.0} s", short.max(1.0)),
        medium if medium < 117.5 => format!("{:.0} s", 5.0 * (medium / 5.0).round()),
        _ if minutes < 60 => format!("{minutes} min"),
        _ => match (minutes / 60, minutes % 60 / 5 * 5) {
            (hours, 0) | (hours @ 10.., _) => format!("{hours} h"),
            (hours, minutes) => format!("{hours} h {minutes} min"),
        },
    }
}

/// A count with its digits in groups of three.
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// The change from one number to another, in percent with its sign.
pub fn change(before: usize, after: usize) -> String {
    format!("{:+.1} %", 100.0 * (after as f64 / before as f64 - 1.0))
}

/// A number and its noun.
pub fn plural(number: usize, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_commands_go_on_as_a_shell_reads_them() {
        let command = "transmla generate --model-path /a/long/path --prompt 'Once upon -- a time'";
        assert_eq!(continued(command, 80), [command]);
        assert_eq!(
            continued(command, 50),
            [
                "transmla generate --model-path /a/long/path \\",
                "  --prompt 'Once upon -- a time'"
            ]
        );
        let mut table = Table::new("Title");
        table.row("label", "value").command("try next", command);
        let text = table.to_string();
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        assert!(text.contains("\\\n              --prompt"), "{text}");
    }

    #[test]
    fn numbers_are_readable() {
        assert_eq!(bytes(999), "999 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(count(1234567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(change(64, 36), "-43.8 %");
        assert_eq!(seconds(1.234), "1.23 s");
        assert_eq!(seconds(125.0), "2 min 5 s");
        assert_eq!(seconds(119.97), "2 min 0 s");
        assert_eq!(seconds(179.8), "3 min 0 s");
        let durations = [0.2, 7.4, 19.6, 58.0, 117.4, 118.0, 3599.0, 7500.0];
        let expected = ["1 s", "7 s", "20 s", "60 s", "115 s", "2 min", "1 h", "2 h 5 min"];
        assert_eq!(durations.map(about), expected);
    }
}
