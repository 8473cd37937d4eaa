//! Samples with random words in them.

use std::borrow::Cow;
use std::cell::RefCell;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::error::CalibError;
use crate::text::samples::mix::interleave;
use crate::text::samples::sample::{RowSource, SampleSpec, Sampled, draw, sample};
use crate::text::tokens::tokenizer::TextTokenizer;

/// Share of words that are replaced in a noisy text.
const REPLACED: f64 = 0.3;

/// Draws samples as [`sample`] does, a `share` of them from the same text with noise: three in ten of its words, as separated
/// by white space, are replaced by the text of a random token.
///
/// A model fitted on one kind of text gets worse on others, since directions that the text never takes may be given up.
/// Random words take a little of all directions. Layer-wise fitting can use them, as its targets come from the original
/// model, which has an output for any text. Special tokens, and tokens that are not text by themselves, are not drawn. The
/// noisy samples are spread evenly among the others.
///
/// # Errors
/// As [`sample`]; [`CalibError::Mix`] for a `share` outside 0 to 1.
pub fn sample_with_noise(
    rows: &[String],
    tokenizer: &TextTokenizer,
    spec: &SampleSpec,
    share: f64,
) -> Result<Sampled, CalibError> {
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
        false => draw(&NoisyRows::new(rows, pieces, seed), tokenizer, &noisy_spec)?,
    }
    .tokens;
    let samples = spec.samples - samples;
    let tokens = match samples {
        0 => noisy,
        _ => interleave(&[sample(rows, tokenizer, &SampleSpec { samples, ..*spec })?.tokens, noisy])?,
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
    rows: &'a [String],
    pieces: Vec<String>,
    /// The first row of each stretch, and the random generator before it.
    stretches: Vec<(usize, StdRng)>,
    /// The index and the rows of the stretch that was made last.
    made: RefCell<(usize, Vec<String>)>,
}

impl<'a> NoisyRows<'a> {
    fn new(rows: &'a [String], pieces: Vec<String>, seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut stretches = Vec::new();
        let mut length = STRETCH;
        for (index, row) in rows.iter().enumerate() {
            if length >= STRETCH {
                stretches.push((index, rng.clone()));
                length = 0;
            }
            length += row.len();
            noisy_words(row, &pieces, &mut rng).for_each(drop);
        }
        Self {
            rows,
            pieces,
            stretches,
            made: RefCell::new((usize::MAX, Vec::new())),
        }
    }

    fn make(&self, stretch: usize) -> Vec<String> {
        let (first, rng) = &self.stretches[stretch];
        let end = self.stretches.get(stretch + 1).map_or(self.rows.len(), |next| next.0);
        let mut rng = rng.clone();
        let mut row = |row: &String| noisy_words(row, &self.pieces, &mut rng).collect::<Vec<_>>().join(" ");
        self.rows[*first..end].iter().map(&mut row).collect()
    }
}

impl RowSource for NoisyRows<'_> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    fn is_empty_row(&self, row: usize) -> bool {
        self.rows[row].trim().is_empty()
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

/// The words of a row, some of them replaced by random ones.
fn noisy_words<'a>(row: &'a str, pieces: &'a [String], rng: &'a mut StdRng) -> impl Iterator<Item = &'a str> {
    row.split_whitespace().map(move |word| match rng.random_bool(REPLACED) {
        true => pieces[rng.random_range(0..pieces.len())].as_str(),
        false => word,
    })
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
