//! How the values of a recipe stand in its file.

use std::num::NonZeroUsize;

use serde::de::Error;
use serde::{Deserialize, Deserializer};

use crate::spec::options::FreqFold;

/// Types whose form on the command line is also their form in the file.
pub(crate) mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}

/// A style by its name, or the published flag: whether it is the stock one.
pub(crate) mod style_or_flag {
    use serde::{Deserialize, Deserializer};

    use crate::spec::options::Style;

    #[derive(Deserialize)]
    #[serde(untagged, expecting = "expected \"auto\", \"deepseek-v3\" or \"family\"")]
    enum Form {
        Name(Style),
        Flag(bool),
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Style, D::Error> {
        Ok(match Form::deserialize(deserializer)? {
            Form::Name(style) => style,
            Form::Flag(true) => Style::DeepseekV3,
            Form::Flag(false) => Style::Family,
        })
    }
}

/// A positive integer.
pub(crate) fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    let number = NonZeroUsize::deserialize(deserializer);
    let number = number.map_err(|error| D::Error::custom(format_args!("expected a positive integer: {error}")))?;
    Ok(Some(number.get()))
}

/// `"auto"` or a positive integer.
pub(crate) mod auto_or_number {
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

    use crate::spec::options::FreqFold;

    #[derive(Serialize, Deserialize)]
    #[serde(untagged, expecting = "expected \"auto\" or a positive integer")]
    enum Form {
        Number(usize),
        Text(String),
    }

    pub fn serialize<T, S>(value: &T, serializer: S) -> Result<S::Ok, S::Error>
    where
        T: Into<FreqFold> + Copy,
        S: Serializer,
    {
        let form = match (*value).into() {
            FreqFold::Auto => Form::Text("auto".into()),
            FreqFold::Fixed(number) => Form::Number(number),
        };
        form.serialize(serializer)
    }

    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: From<FreqFold>,
        D: Deserializer<'de>,
    {
        let text = match Form::deserialize(deserializer)? {
            Form::Number(number) => number.to_string(),
            Form::Text(text) => text,
        };
        text.parse::<FreqFold>().map(T::from).map_err(de::Error::custom)
    }
}

impl From<Option<usize>> for FreqFold {
    fn from(number: Option<usize>) -> Self {
        number.map_or(Self::Auto, Self::Fixed)
    }
}

impl From<FreqFold> for Option<usize> {
    fn from(fold: FreqFold) -> Self {
        match fold {
            FreqFold::Auto => None,
            FreqFold::Fixed(number) => Some(number),
        }
    }
}
