//! A share of the original KV cache, as people write it.

use std::error::Error;
use std::fmt;

/// A text that is no share of a cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotAShare;

impl fmt::Display for NotAShare {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected a share of the original KV cache: 50%, 0.5 or 50")
    }
}

impl Error for NotAShare {}

/// `50%`, `0.5` or `50`: a number of 1 or less is a share, a larger one percent. Its range is checked against the model.
///
/// # Errors
/// It is no number.
pub fn budget(text: &str) -> Result<f64, NotAShare> {
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let share = match text.trim().strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => match number(text) {
            Some(share) if share <= 1.0 => Some(share),
            percent => percent.map(|percent| percent / 100.0),
        },
    };
    share.ok_or(NotAShare)
}

/// Below this share of their cache models mostly lose what they were made for.
const LITTLE: f64 = 0.1;

/// What to say of a conversion that keeps so many numbers of so many, if it is to be said.
pub fn warning(original: usize, kept: usize) -> Option<String> {
    let share = kept as f64 / original as f64;
    (share < LITTLE).then(|| {
        format!(
            "no more than {:.1} % of the KV cache is kept; below {:.0} % models lose most of what they know: measure with \
             transmla eval, or keep more (--kv-budget 25%)",
            100.0 * share,
            100.0 * LITTLE
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_read_as_they_are_meant() {
        for text in ["50%", "50 %", "0.5", ".5", "50", "50.0", " 50% "] {
            assert_eq!(budget(text), Ok(0.5), "{text}");
        }
        assert_eq!(
            (budget("1"), budget("100"), budget("100%")),
            (Ok(1.0), Ok(1.0), Ok(1.0))
        );
        assert_eq!((budget("1%"), budget("1.5")), (Ok(0.01), Ok(0.015)));
        assert_eq!((budget("200%"), budget("250")), (Ok(2.0), Ok(2.5)));
        assert!(warning(64, 6).is_some_and(|said| said.contains("9.4 % of")) && warning(64, 7).is_none());
        for wrong in ["half", "%", "nan", "inf", ""] {
            assert!(budget(wrong).is_err(), "{wrong}");
        }
    }
}
