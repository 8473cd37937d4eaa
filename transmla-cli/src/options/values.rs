//! What the value of an option may be.

use std::error::Error;
use std::fmt;
use std::str::FromStr;

use transmla_core::checkpoint::parse_size;
use transmla_core::hub::is_repo_id;

/// What the value of an option should have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expected(pub &'static str);

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {}", self.0)
    }
}

impl Error for Expected {}

/// A positive integer.
pub fn positive(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(Expected("a positive integer")),
    }
}

/// Tokens of a window, of which all but the first are predicted.
pub fn window(text: &str) -> Result<usize, Expected> {
    match text.parse() {
        Ok(number) if number > 1 => Ok(number),
        _ => Err(Expected(
            "an integer of 2 or more: the first token of a window is not predicted",
        )),
    }
}

/// A size in bytes, with or without a unit.
pub fn size(text: &str) -> Result<u64, Expected> {
    parse_size(text).map_err(|_| Expected("a size such as 5GB, 200MB or 2GiB"))
}

/// A share of a whole such as `25%` or `0.25`, at most all of it.
pub fn share(text: &str) -> Result<f64, Expected> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    let share = match text.strip_suffix('%') {
        Some(percent) => number(percent).map(|percent| percent / 100.0),
        None => number(text),
    };
    share
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or(Expected("a share of 0 to 1, such as 25% or 0.25"))
}

/// A temperature: zero or more.
pub fn temperature(text: &str) -> Result<f64, Expected> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err(Expected("a number of 0 or more")),
    }
}

/// A probability above zero.
pub fn probability(text: &str) -> Result<f64, Expected> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number <= 1.0 => Ok(number),
        _ => Err(Expected("a number above 0, at most 1")),
    }
}

/// A share of a whole: 0 to 1.
pub fn portion(text: &str) -> Result<f64, Expected> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(Expected("a number of 0 to 1")),
    }
}

/// A repetition penalty: above zero.
pub fn penalty(text: &str) -> Result<f64, Expected> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(Expected("a number above 0, such as 1.1")),
    }
}

/// A repository of the hub with its owner.
pub fn repository(text: &str) -> Result<String, Expected> {
    match is_repo_id(text) && text.contains('/') {
        true => Ok(text.to_owned()),
        false => Err(Expected("owner/name, of letters, digits, -, _ and .")),
    }
}

/// `auto` or a positive integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AutoOr(pub Option<usize>);

impl FromStr for AutoOr {
    type Err = Expected;

    fn from_str(text: &str) -> Result<Self, Expected> {
        match text {
            "auto" => Ok(Self(None)),
            number => match positive(number) {
                Ok(number) => Ok(Self(Some(number))),
                Err(_) => Err(Expected("auto or a positive integer")),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_have_a_percent_sign_or_are_at_most_one() {
        assert_eq!(share("25%"), Ok(0.25));
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["25", "200%", "-1%", "a quarter", "%", "nan", "inf%", ""] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn numbers_are_in_range() {
        assert_eq!(positive("8"), Ok(8));
        assert!(positive("0").is_err() && positive("-1").is_err() && positive("8.0").is_err());
        assert!(window("2").is_ok() && window("1").is_err());
        assert_eq!("auto".parse(), Ok(AutoOr(None)));
        assert_eq!("4".parse(), Ok(AutoOr(Some(4))));
        assert!("often".parse::<AutoOr>().is_err());
        assert!(temperature("-0.1").is_err() && temperature("nan").is_err());
        assert_eq!((portion("0"), penalty("1.1")), (Ok(0.0), Ok(1.1)));
        assert!(portion("1.1").is_err() && portion("nan").is_err() && penalty("0").is_err() && penalty("inf").is_err());
        assert!(probability("0").is_err() && probability("1.1").is_err());
    }
}
