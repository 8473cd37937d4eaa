//! Samples with random words in them.

use std::borrow::Cow;
use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::CalibError;
use crate::text::samples::documents::Documents;
use crate::text::samples::mix::interleave;
use crate::text::samples::sample::{RowSource, SampleSpec, Sampled, draw, sample};
use crate::text::tokens::pieces::Joining;
use crate::text::tokens::tokenizer::TextTokenizer;

/// Share of words that are replaced in a noisy text.
const REPLACED: f64 = 0.3;

/// Draws samples as [`sample`] does, a `share` of them from the same text with noise: three in ten of its words, as separated
/// by white space, are replaced by the text of a random token.
///
/// A model fitted on one kind of text gets worse on others, since directions that the text never takes may be given up.
/// Random words take a little of all directions. Layer-wise fitting can use them, as its targets come from the original
/// model, which has an output for any text. Special tokens, and tokens that are not text by themselves, are not drawn. In chats
/// that a template has rendered, words with special tokens in them and all white space stay. The noisy samples are spread
/// evenly among the others.
///
/// # Errors
/// As [`sample`]; [`CalibError::Mix`] for a `share` outside 0 to 1.
pub fn sample_with_noise<'a>(
    rows: impl Into<Documents<'a>>,
    tokenizer: &TextTokenizer,
    spec: &SampleSpec,
    share: f64,
) -> Result<Sampled, CalibError> {
    let rows = rows.into();
    if !(0.0..=1.0).contains(&share) {
        return Err(CalibError::Mix {
            problem: format!("the share of samples with noise is {share}, expected 0 to 1"),
        });
    }
    let noisy = (share * spec.samples as f64).round() as usize;
    if noisy == 0 {
        return sample(rows, tokenizer, spec);
    }
    // With the same seed the noisy samples would start at the same rows as the others.
    let seed = spec.seed.wrapping_add(1);
    let samples = noisy;
    let noisy_spec = SampleSpec { samples, seed, ..*spec };
    let pieces = pieces(tokenizer)?;
    let noisy = match pieces.is_empty() {
        true => sample(rows, tokenizer, &noisy_spec)?,
        false => draw(
            &NoisyRows::new(rows, Noise::new(pieces, rows, tokenizer), seed),
            tokenizer,
            &noisy_spec,
        )?,
    }
    .tokens;
    let samples = spec.samples - samples;
    let tokens = match samples {
        0 => noisy,
        _ => interleave(
            &[sample(rows, tokenizer, &SampleSpec { samples, ..*spec })?.tokens, noisy],
            1,
        )?,
    };
    Ok(Sampled {
        tokens,
        requested: spec.samples,
    })
}

/// Bytes of text between two saved states of the random generator.
const STRETCH: usize = 256 << 10;

/// Rows with random words in them, made on demand: all of them would take the memory of the text once more.
struct NoisyRows<'a> {
    rows: Documents<'a>,
    noise: Noise,
    /// The first row of each stretch, and the random generator before it.
    stretches: Vec<(usize, StdRng)>,
    /// The index and the rows of the stretch that was made last.
    made: RefCell<(usize, Vec<String>)>,
}

impl<'a> NoisyRows<'a> {
    fn new(rows: Documents<'a>, noise: Noise, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stretches = Vec::new();
        let mut length = STRETCH;
        for (index, row) in rows.rows().iter().enumerate() {
            if length >= STRETCH {
                stretches.push((index, rng.clone()));
                length = 0;
            }
            length += row.len();
            drop(noise.on(row, &mut rng));
        }
        Self {
            rows,
            noise,
            stretches,
            made: RefCell::new((usize::MAX, Vec::new())),
        }
    }

    fn make(&self, stretch: usize) -> Vec<String> {
        let (first, rng) = &self.stretches[stretch];
        let end = self.stretches.get(stretch + 1).map_or(self.len(), |next| next.0);
        let mut rng = rng.clone();
        let rows = self.rows.rows()[*first..end].iter();
        rows.map(|row| self.noise.on(row, &mut rng)).collect()
    }
}

impl RowSource for NoisyRows<'_> {
    fn len(&self) -> usize {
        self.rows.rows().len()
    }

    fn joining(&self) -> Joining {
        self.rows.joining()
    }

    fn is_empty_row(&self, row: usize) -> bool {
        self.rows.rows()[row].trim().is_empty()
    }

    fn row(&self, row: usize) -> Cow<'_, str> {
        let stretch = self.stretches.partition_point(|(first, _)| *first <= row) - 1;
        let mut made = self.made.borrow_mut();
        if made.0 != stretch {
            *made = (stretch, self.make(stretch));
        }
        Cow::Owned(made.1[row - self.stretches[stretch].0].clone())
    }
}

/// Random words for some of a row's words.
struct Noise {
    /// What is put in; not empty.
    pieces: Vec<String>,
    /// In rows that a template has rendered, the special tokens: words with one of them stay, as does all white space.
    kept: Option<Vec<String>>,
}

impl Noise {
    fn new(pieces: Vec<String>, rows: Documents<'_>, tokenizer: &TextTokenizer) -> Self {
        let kept = rows.is_templated().then(|| tokenizer.special_tokens());
        Self { pieces, kept }
    }

    /// A row with some of its words replaced.
    fn on(&self, row: &str, rng: &mut StdRng) -> String {
        let mut other = |word: &str| match rng.random_bool(REPLACED) {
            true => self.pieces[rng.random_range(0..self.pieces.len())].clone(),
            false => word.to_owned(),
        };
        let Some(kept) = &self.kept else {
            return row.split_whitespace().map(other).collect::<Vec<_>>().join(" ");
        };
        let mut noisy = String::with_capacity(row.len());
        for part in row.split_inclusive(char::is_whitespace) {
            let word = part.trim_end_matches(char::is_whitespace);
            match word.is_empty() || kept.iter().any(|token| word.contains(token.as_str())) {
                true => noisy.push_str(word),
                false => noisy.push_str(&other(word)),
            }
            noisy.push_str(&part[word.len()..]);
        }
        noisy
    }
}

/// The texts of ordinary tokens: not empty, of whole and printable characters.
fn pieces(tokenizer: &TextTokenizer) -> Result<Vec<String>, CalibError> {
    let mut pieces = Vec::new();
    for id in 0..tokenizer.vocab_size() as u32 {
        let text = tokenizer.decode(&[id], true)?;
        let piece = text.trim();
        if !piece.is_empty() && !piece.contains(|c: char| c.is_control() || c == char::REPLACEMENT_CHARACTER) {
            pieces.push(piece.to_owned());
        }
    }
    Ok(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_of_a_chat_stays() {
        let row = "<|im_start|>user\nTell  me a\n\nstory now<|im_end|>\n<|im_start|>assistant\n- One day<|im_end|>\n";
        let noise = Noise {
            pieces: vec!["zz".into()],
            kept: Some(vec!["<|im_start|>".into(), "<|im_end|>".into()]),
        };
        let (mut rng, mut replaced) = (StdRng::seed_from_u64(1), 0);
        let blank = |text: &str| text.replace(|c: char| !c.is_whitespace(), "");
        for _ in 0..100 {
            let noisy = noise.on(row, &mut rng);
            assert_eq!(blank(&noisy), blank(row));
            for (word, other) in row.split_whitespace().zip(noisy.split_whitespace()) {
                assert!(
                    word == other || other == "zz" && !word.contains("<|im_"),
                    "{word} {other}"
                );
                replaced += usize::from(word != other);
            }
        }
        // Three in ten of the six words between special tokens, in a hundred rows.
        assert!((120..240).contains(&replaced), "{replaced}");
        let plain = Noise { kept: None, ..noise };
        assert!(!plain.on(row, &mut rng).contains('\n'));
    }
}
