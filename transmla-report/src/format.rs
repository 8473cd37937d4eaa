//! Figures as people read them.

/// A value with three digits.
pub(crate) fn three_digits(value: f64) -> String {
    let decimals = (2 - value.abs().max(1.0).log10().floor() as i32).max(0) as usize;
    format!("{value:.decimals$}")
}

/// A share in percent, with as many digits as tell it from nothing and from all.
pub(crate) fn percent(share: f64) -> String {
    let percent = 100.0 * share;
    let decimals = match percent.abs() {
        p if p == 0.0 || p >= 10.0 => 1,
        p if p >= 1.0 => 2,
        p => (1 - p.max(1e-6).log10().floor() as i32).max(2) as usize,
    };
    format!("{percent:.decimals$} %")
}

/// A perplexity's change, with its sign.
pub(crate) fn change(before: f64, after: f64) -> String {
    let percent = 100.0 * (after / before - 1.0);
    let decimals = usize::from(percent.abs() < 99.95);
    format!("{percent:+.decimals$} %").replace('-', "−")
}

/// A time.
pub(crate) fn seconds(seconds: f64) -> String {
    match seconds {
        s if s < 10.0 => format!("{s:.1} s"),
        s if s < 90.0 => format!("{s:.0} s"),
        s if s < 3600.0 => format!("{:.0} min {:02.0} s", (s / 60.0).floor(), (s % 60.0).floor()),
        s => format!("{:.0} h {:02.0} min", (s / 3600.0).floor(), (s % 3600.0 / 60.0).floor()),
    }
}

/// A size of memory.
pub(crate) fn bytes(bytes: u64) -> String {
    let bytes = bytes as f64;
    let units = [("GiB", 1u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.into_iter().find(|(_, unit)| bytes >= *unit as f64) {
        Some((name, unit)) => format!("{} {name}", three_digits(bytes / unit as f64)),
        None => format!("{bytes} bytes"),
    }
}

/// Whole numbers with spaces between thousands.
pub(crate) fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && digits.len() > 4 {
            text.push('\u{202f}');
        }
        text.push(digit);
    }
    text
}

/// The start of a text that is too long, and a sign that it goes on.
pub(crate) fn shorten(text: &str, most: usize) -> String {
    match text.chars().count() > most {
        true => text.chars().take(most.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_the_digits_that_count() {
        assert_eq!(
            ["4.50", "16.0", "120", "75200"],
            [4.5, 16.0, 120.0, 75200.0].map(three_digits)[..]
        );
        let shares = [0.0, 1.0, 0.5, 0.0123, 0.00012, 0.000_004_2];
        let texts = ["0.0 %", "100.0 %", "50.0 %", "1.23 %", "0.012 %", "0.00042 %"];
        assert_eq!(texts, shares.map(percent)[..]);
        assert_eq!(
            ["1.5 s", "75 s", "2 min 05 s", "2 h 03 min"],
            [1.5, 75.4, 125.0, 7380.0].map(seconds)[..]
        );
        assert_eq!(["12 bytes", "1.50 GiB"], [12, 3 << 29].map(bytes)[..]);
        assert_eq!(["640", "4096", "49\u{202f}152"], [640, 4096, 49152].map(count)[..]);
        assert_eq!(
            (change(4.0, 5.0), change(4.0, 3.0)),
            ("+25.0 %".into(), "−25.0 %".into())
        );
        assert_eq!(change(1.0, 3.172), "+217 %");
        assert_eq!((shorten("abcd", 3), shorten("abc", 3)), ("ab…".into(), "abc".into()));
    }
}
