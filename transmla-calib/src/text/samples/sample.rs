//! Drawing calibration samples.

use std::borrow::Cow;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use transmla_checkpoint::TokenBatch;

use crate::error::CalibError;
use crate::text::samples::documents::Documents;
use crate::text::tokens::pieces::Joining;
use crate::text::tokens::tokenizer::TextTokenizer;

/// How many calibration samples to draw, and of which length.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleSpec {
    /// Number of samples.
    pub samples: usize,
    /// Tokens per sample.
    pub sequence: usize,
    /// Seed of the random numbers; the same seed, text and tokenizer give the same samples.
    pub seed: u64,
}

/// Samples drawn from a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sampled {
    /// The samples, `[samples, sequence]`; fewer than requested if the text is too short.
    pub tokens: TokenBatch,
    /// The number of samples asked for.
    pub requested: usize,
}

/// Draws samples from rows of text.
///
/// Empty rows are dropped. A sample starts at a random row and takes rows, joined as [`Documents`] are, until it has `sequence`
/// tokens, special tokens (BOS) included; it is cut there, and its rows are not used again. If the rows end before that, the
/// sample and its rows are dropped. There are no more samples once all rows are used.
///
/// # Errors
/// [`CalibError::Argument`] if `samples` or `sequence` is 0, [`CalibError::TooShort`] if the text yields no sample,
/// [`CalibError::Tokenization`] if the tokenizer fails.
pub fn sample<'a>(
    rows: impl Into<Documents<'a>>,
    tokenizer: &TextTokenizer,
    spec: &SampleSpec,
) -> Result<Sampled, CalibError> {
    draw(&rows.into(), tokenizer, spec)
}

/// Rows that are accessed one at a time.
pub(crate) trait RowSource {
    fn len(&self) -> usize;
    fn is_empty_row(&self, row: usize) -> bool;
    fn row(&self, row: usize) -> Cow<'_, str>;
    fn joining(&self) -> Joining;
}

impl RowSource for Documents<'_> {
    fn len(&self) -> usize {
        self.rows().len()
    }

    fn is_empty_row(&self, row: usize) -> bool {
        self.rows()[row].is_empty()
    }

    fn row(&self, row: usize) -> Cow<'_, str> {
        Cow::Borrowed(&self.rows()[row])
    }

    fn joining(&self) -> Joining {
        Documents::joining(self)
    }
}

/// Draws samples as [`sample`] does.
pub(crate) fn draw(rows: &impl RowSource, tokenizer: &TextTokenizer, spec: &SampleSpec) -> Result<Sampled, CalibError> {
    let asked = [
        ("the number of samples", spec.samples),
        ("the tokens of a sample", spec.sequence),
    ];
    if let Some(&(name, found)) = asked.iter().find(|(_, value)| *value == 0) {
        let expected = "1 or more".into();
        return Err(CalibError::Argument { name, found, expected });
    }
    let mut left: Vec<usize> = (0..rows.len()).filter(|&row| !rows.is_empty_row(row)).collect();
    let mut rng = StdRng::seed_from_u64(spec.seed);
    let (mut ids, mut found, mut longest_tail) = (Vec::new(), 0, 0);
    while found < spec.samples && !left.is_empty() {
        let start = rng.random_range(0..left.len());
        let run = Run::grow(rows, &left[start..], tokenizer, spec.sequence)?;
        left.drain(start..start + run.used);
        if run.enough {
            ids.extend(run.ids[..spec.sequence].iter().map(|&id| i64::from(id)));
            found += 1;
        } else {
            longest_tail = longest_tail.max(run.length);
        }
    }
    if found == 0 {
        return Err(CalibError::TooShort {
            needed: spec.sequence,
            found: longest_tail,
            hint: match longest_tail {
                0 => "use another text".into(),
                tokens => format!("use a longer text or sequence = {tokens}"),
            },
        });
    }
    Ok(Sampled {
        tokens: TokenBatch::from_ids(ids, found, spec.sequence)?,
        requested: spec.samples,
    })
}

/// Consecutive rows joined, and their tokens.
struct Run {
    ids: Vec<u32>,
    /// Number of rows taken.
    used: usize,
    /// Whether there are as many tokens as were asked for.
    enough: bool,
    /// The greatest number of tokens for which it would have been enough.
    length: usize,
}

impl Run {
    /// Takes rows until there are `sequence` tokens.
    ///
    /// Each row is first tokenised by itself, as far as needed, so that the whole is tokenised only once it is about long
    /// enough.
    fn grow(
        rows: &impl RowSource,
        left: &[usize],
        tokenizer: &TextTokenizer,
        sequence: usize,
    ) -> Result<Self, CalibError> {
        let joining = rows.joining();
        let (mut text, mut estimate) = (String::new(), 0);
        for (index, &row) in left.iter().enumerate() {
            let start = text.len();
            if index > 0 {
                text.push_str(joining.between);
            }
            text.push_str(&rows.row(row));
            estimate += tokenizer
                .encode_rows([&text[start..]], joining.bare(), Some(sequence - estimate))?
                .len();
            if estimate >= sequence {
                let ids = tokenizer.encode_rows([text.as_str()], joining, Some(sequence))?;
                if ids.len() >= sequence {
                    return Ok(Self {
                        length: ids.len(),
                        ids,
                        used: index + 1,
                        enough: true,
                    });
                }
                // Tokens have merged across rows: there are fewer than in the rows by themselves.
                estimate = ids.len();
            }
        }
        let ids = tokenizer.encode_rows([text.as_str()], joining, None)?;
        Ok(Self {
            length: estimate.min(ids.len()),
            ids,
            used: left.len(),
            enough: false,
        })
    }
}
