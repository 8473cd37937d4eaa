//! Several texts with weights, as one argument.

use std::fmt;
use std::path::{Path, PathBuf};

use transmla_calib::{CalibError, DatasetSource, divide_samples};

use crate::spec::error::TextNameError;
use crate::text::source::{LocalText, TextSource};

/// Texts with weights: `wikitext2`, or `wikitext2:2,ptb:1,notes.txt`.
///
/// A path that exists is taken as it is, whatever commas and colons are in it. A name may also stand in double quotes, or
/// have a backslash before a comma, a colon, a quote or a backslash.
#[derive(Debug, Clone, PartialEq)]
pub struct TextMix(Vec<(TextSource, f64)>);

impl TextMix {
    /// The texts of a list, where the program has some of its own.
    ///
    /// # Errors
    /// A name that is none, or a weight that is no positive number.
    pub fn parse(text: &str, locals: &[LocalText]) -> Result<Self, TextNameError> {
        if let Ok(source) = TextSource::parse(text, locals) {
            return Ok(Self(vec![(source, 1.0)]));
        }
        let single = !text.contains([',', ':']);
        let mut parts = Vec::new();
        let mut rest = Some(text);
        while let Some(text) = rest {
            let (part, behind) = next_part(text, single, locals)?;
            parts.push(part);
            rest = behind;
        }
        // By itself a text has all the weight.
        if let [(_, weight)] = &mut parts[..] {
            *weight = 1.0;
        }
        Ok(Self(parts))
    }
}

/// The first text of a list with its weight, and what follows behind the comma.
///
/// With `single` the text is all there is, and an error need not name it.
fn next_part<'a>(
    text: &'a str,
    single: bool,
    locals: &[LocalText],
) -> Result<((TextSource, f64), Option<&'a str>), TextNameError> {
    // The longest beginning that exists: a path may contain commas and colons itself.
    let ends = text.match_indices(',').map(|(at, _)| at).chain([text.len()]);
    for end in ends.collect::<Vec<_>>().into_iter().rev() {
        let (part, behind) = (&text[..end], text.get(end + 1..));
        if let Ok(source) = TextSource::parse(part, locals) {
            return Ok(((source, 1.0), behind));
        }
        if let Some((name, weight)) = part.rsplit_once(':')
            && let (Ok(source), Ok(weight)) = (TextSource::parse(name, locals), parse_weight(weight, part))
        {
            return Ok(((source, weight), behind));
        }
    }
    let (name, rest) = unquoted(text);
    let (weight, behind) = match rest.find(',') {
        Some(comma) => (&rest[..comma], Some(&rest[comma + 1..])),
        None => (rest, None),
    };
    let part = &text[..text.len() - behind.map_or(0, |behind| behind.len() + 1)];
    let weight = match weight.strip_prefix(':') {
        Some(weight) => parse_weight(weight, part)?,
        // What follows a name begins with a colon or a comma.
        None => 1.0,
    };
    let source = TextSource::parse(&name, locals).map_err(|error| match single {
        true => error,
        false => TextNameError::new(format!("'{name}': {error}")),
    })?;
    Ok(((source, weight), behind))
}

fn parse_weight(weight: &str, part: &str) -> Result<f64, TextNameError> {
    match weight.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(TextNameError::new(format!(
            "'{weight}' in '{part}' is not a weight, a positive number"
        ))),
    }
}

/// The name at the beginning, without its quotes and backslashes, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let (mut name, mut quoted) = (String::new(), false);
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => quoted = !quoted,
            ',' | ':' if !quoted => return (name, &text[at..]),
            '\\' => match letters.clone().next() {
                Some((_, next)) if SPECIAL.contains(&next) => {
                    name.push(next);
                    letters.next();
                }
                _ => name.push(letter),
            },
            letter => name.push(letter),
        }
    }
    (name, "")
}

/// What has a meaning in a list.
const SPECIAL: [char; 4] = [',', ':', '"', '\\'];

/// A name as it stands in a list.
fn quoted(name: &str) -> String {
    match name.contains(SPECIAL) {
        true => format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\"")),
        false => name.to_owned(),
    }
}

/// A list of texts with every name replaced for which there is another; the texts need not exist.
pub fn replace_names(list: &str, replace: &dyn Fn(&str) -> Option<String>) -> String {
    // A name alone stands as it is, whatever is in it.
    if let Some(whole) = replace(list) {
        return whole;
    }
    let mut replaced = String::new();
    let mut rest = list;
    loop {
        let (name, behind) = unquoted(rest);
        match replace(&name) {
            Some(other) => replaced.push_str(&quoted(&other)),
            None => replaced.push_str(&rest[..rest.len() - behind.len()]),
        }
        let Some((weight, next)) = behind.split_once(',') else {
            return replaced + behind;
        };
        replaced.push_str(weight);
        replaced.push(',');
        rest = next;
    }
}

impl fmt::Display for TextMix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [(source, _)] = &self.0[..] {
            return source.fmt(f);
        }
        for (index, (source, weight)) in self.0.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            write!(f, "{comma}{}:{weight}", quoted(&source.to_string()))?;
        }
        Ok(())
    }
}

impl TextMix {
    /// Texts with positive weights, of which there is at least one.
    pub(crate) fn of<const N: usize>(parts: [(TextSource, f64); N]) -> Self {
        Self(parts.to_vec())
    }
}

impl From<TextSource> for TextMix {
    fn from(source: TextSource) -> Self {
        Self(vec![(source, 1.0)])
    }
}

impl TextMix {
    /// The texts and their weights; at least one.
    pub fn parts(&self) -> &[(TextSource, f64)] {
        &self.0
    }

    /// The first text that can be measured on, which an evaluation uses where nothing else is asked for; nothing where the
    /// original writes all of them.
    pub fn measurable(&self) -> Option<&TextSource> {
        let mut sources = self.0.iter().map(|(source, _)| source);
        sources.find(|source| **source != TextSource::Own)
    }

    /// Of so many samples how many are of each text.
    ///
    /// # Errors
    /// There are fewer samples than texts.
    pub fn divide(&self, samples: usize) -> Result<Vec<usize>, CalibError> {
        let weights: Vec<f64> = self.0.iter().map(|(_, weight)| *weight).collect();
        divide_samples(samples, &weights)
    }

    /// Of so many samples how many the original writes.
    ///
    /// # Errors
    /// As for [`Self::divide`].
    pub fn own_samples(&self, samples: usize) -> Result<usize, CalibError> {
        let shares = self.divide(samples)?.into_iter().zip(&self.0);
        let own = shares.filter(|(_, (source, _))| *source == TextSource::Own);
        Ok(own.map(|(samples, _)| samples).sum())
    }

    /// The files and folders among them.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.0.iter().filter_map(|(source, _)| match source {
            TextSource::Dataset(DatasetSource::Path(path)) => Some(path.as_path()),
            _ => None,
        })
    }

    /// The same with every path replaced.
    pub fn with_paths(&self, replace: &dyn Fn(&Path) -> PathBuf) -> Self {
        let replaced = |source: &TextSource| match source {
            TextSource::Dataset(DatasetSource::Path(path)) => TextSource::Dataset(DatasetSource::Path(replace(path))),
            other => other.clone(),
        };
        Self(
            self.0
                .iter()
                .map(|(source, weight)| (replaced(source), *weight))
                .collect(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_commas_and_colons() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        for name in [
            "a, b:2.txt",
            "a",
            "plain.txt",
            "quote\".txt",
            "back\\slash,.txt",
            "b:2.txt",
        ] {
            std::fs::write(path(name), "text").unwrap();
        }
        let mix = |text: &str| {
            let mix = TextMix::parse(text, &[])
                .map_err(|error| format!("{text}: {error}"))
                .unwrap();
            // What is written is read as the same.
            assert_eq!(TextMix::parse(&mix.to_string(), &[]).unwrap(), mix, "{mix}");
            mix.0
                .iter()
                .map(|(source, weight)| (source.to_string(), *weight))
                .collect::<Vec<_>>()
        };
        let odd = path("a, b:2.txt");
        let escaped = odd.replace(',', "\\,").replace(':', "\\:");
        let ptb = || ("ptb".to_owned(), 1.0);
        assert_eq!(mix(&odd), [(odd.clone(), 1.0)]);
        assert_eq!(mix(&format!("{odd}:3")), [(odd.clone(), 1.0)]);
        assert_eq!(mix(&format!("{odd}:3,ptb")), [(odd.clone(), 3.0), ptb()]);
        assert_eq!(mix(&format!("ptb,{odd}")), [ptb(), (odd.clone(), 1.0)]);
        assert_eq!(mix(&format!("\"{odd}\":3,ptb")), [(odd.clone(), 3.0), ptb()]);
        assert_eq!(
            mix(&format!("{escaped}:0.5,ptb:2")),
            [(odd.clone(), 0.5), ("ptb".to_owned(), 2.0)]
        );
        assert_eq!(
            mix(&format!("{},ptb", path("quote\".txt"))),
            [(path("quote\".txt"), 1.0), ptb()]
        );
        assert_eq!(
            mix(&format!("{}:2,c4", path("back\\slash,.txt"))),
            [(path("back\\slash,.txt"), 2.0), ("c4".to_owned(), 1.0)]
        );
        assert_eq!(
            mix(&format!("{}:2,wikitext2", path("plain.txt"))),
            [(path("plain.txt"), 2.0), ("wikitext2".to_owned(), 1.0)]
        );
    }

    #[test]
    fn what_is_no_mix_is_told() {
        let error = |text: &str| TextMix::parse(text, &[]).unwrap_err().to_string();
        assert!(
            error("ptb:0").contains("'0' in 'ptb:0' is not a weight"),
            "{}",
            error("ptb:0")
        );
        assert!(error("wikitext2:x,ptb").contains("'x' in 'wikitext2:x'"));
        assert!(error("wikitext2,nothing").contains("'nothing': expected wikitext2"));
        assert!(error("\"ptb\"x,c4").contains("'ptbx'"));
        assert!(error("").contains("expected wikitext2"));
    }
}
