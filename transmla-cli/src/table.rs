//! Aligned lines, and numbers for people.

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
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.title)?;
        let width = self
            .rows
            .iter()
            .map(|(label, _)| label.chars().count())
            .max()
            .unwrap_or(0);
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

/// A duration that is not known to the second: `5 s`, `40 s`, `4 min`, `1 h 5 min`.
pub fn about(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    // Rounded before it is cut into units, so that no part of it is 60.
    let minutes = (seconds / 60.0).round() as u64;
    match seconds {
        short if short < 19.5 => format!("{:.0} s", short.max(1.0)),
        medium if medium < 117.5 => format!("{:.0} s", 5.0 * (medium / 5.0).round()),
        _ if minutes < 60 => format!("{minutes} min"),
        _ => format!("{} h {} min", minutes / 60, minutes % 60),
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
        let expected = ["1 s", "7 s", "20 s", "60 s", "115 s", "2 min", "1 h 0 min", "2 h 5 min"];
        assert_eq!(durations.map(about), expected);
    }
}
