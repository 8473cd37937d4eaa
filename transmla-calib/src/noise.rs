//! Text with random words in it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::mix::interleave;
use crate::{CalibError, SampleSpec, Sampled, TextTokenizer, sample};

/// Share of the words of a noisy text that are random.
const REPLACED: f64 = 0.3;

/// Draws samples as [`sample`] does, and a share of them from the same text with noise: three in ten of its words, taken
/// between white space, are the text of a random token.
///
/// What a model is fitted to on one kind of text it gets wrong on others: directions that the text never takes are free to
/// be given up. Words that have no place there take a little of all of them, and layer-wise fitting can use them, since its
/// targets come from the original model, which has an answer to any text. Special tokens, and tokens that are no text by
/// themselves, are not drawn. The noisy samples stand evenly among the others.
///
/// # Errors
/// Those of [`sample`]; [`CalibError::Mix`] for a share outside 0 to 1.
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
    // With the same seed the noisy samples would begin where the others do.
    let seed = spec.seed.wrapping_add(1);
    let samples = noisy;
    let with_noise = noisy_rows(rows, tokenizer, seed)?;
    let noisy = sample(&with_noise, tokenizer, &SampleSpec { samples, seed, ..*spec })?.tokens;
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

fn noisy_rows(rows: &[String], tokenizer: &TextTokenizer, seed: u64) -> Result<Vec<String>, CalibError> {
    let pieces = pieces(tokenizer)?;
    if pieces.is_empty() {
        return Ok(rows.to_vec());
    }
    let mut rng = StdRng::seed_from_u64(seed);
    let mut noisy = |row: &String| {
        let words = row.split_whitespace().map(|word| match rng.random_bool(REPLACED) {
            true => pieces[rng.random_range(0..pieces.len())].as_str(),
            false => word,
        });
        words.collect::<Vec<_>>().join(" ")
    };
    Ok(rows.iter().map(&mut noisy).collect())
}

/// The texts of the ordinary tokens: none that is empty, in parts of characters, or not for people's eyes.
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
