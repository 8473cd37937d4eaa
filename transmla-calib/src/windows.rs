//! Evaluation text in windows.

use transmla_core::TokenBatch;

use crate::{CalibError, TextTokenizer};

/// What stands between rows.
pub(crate) const JOINT: &str = "\n\n";

/// Characters read per token at first when only some windows are wanted.
const CHARACTERS_PER_TOKEN: usize = 6;

/// Tokens beyond the last wanted window that are made to be sure of those inside: a cut changes the tokens just before
/// it, since the last word may go on.
const MARGIN: usize = 128;

/// The windows that perplexity is measured on: rows joined by an empty line, tokenised as one text (special tokens
/// included), cut into windows of `seqlen` tokens; what remains at the end is dropped.
///
/// With `max_windows`, no more than the first so many; then no more of the text is tokenised than they need.
///
/// # Errors
/// [`CalibError::Argument`] if `seqlen` is less than 2 (a window predicts `seqlen - 1` tokens) or `max_windows` is 0,
/// [`CalibError::TooShort`] if the text has less than one window.
pub fn evaluation_windows(
    rows: &[String],
    tokenizer: &TextTokenizer,
    seqlen: usize,
    max_windows: Option<usize>,
) -> Result<TokenBatch, CalibError> {
    if seqlen < 2 {
        return Err(CalibError::Argument {
            name: "the tokens of an evaluation window",
            found: seqlen,
            expected: "2 or more".into(),
        });
    }
    if max_windows == Some(0) {
        return Err(CalibError::Argument {
            name: "the number of evaluation windows",
            found: 0,
            expected: "1 or more".into(),
        });
    }
    let tokens = max_windows.and_then(|windows| windows.checked_mul(seqlen));
    let ids = match tokens {
        Some(tokens) => first_tokens(rows, tokenizer, tokens)?,
        None => tokenizer.encode(&rows.join(JOINT), true)?,
    };
    let windows = (ids.len() / seqlen).min(max_windows.unwrap_or(usize::MAX));
    if windows == 0 {
        return Err(CalibError::TooShort {
            needed: seqlen,
            found: ids.len(),
            hint: match ids.len() {
                0 | 1 => "use a longer text".into(),
                tokens => format!("use a longer text or --eval-seqlen {tokens}"),
            },
        });
    }
    let ids = ids[..windows * seqlen].iter().map(|&id| i64::from(id)).collect();
    TokenBatch::from_ids(ids, windows, seqlen).map_err(|e| CalibError::Tokens(e.to_string()))
}

/// At least the first `tokens` tokens of the joined rows, or all there are.
fn first_tokens(rows: &[String], tokenizer: &TextTokenizer, tokens: usize) -> Result<Vec<u32>, CalibError> {
    let enough = tokens.saturating_add(MARGIN);
    let mut characters = enough.saturating_mul(CHARACTERS_PER_TOKEN);
    loop {
        let mut length = 0_usize;
        let taken = rows.iter().take_while(|row| {
            let before = length;
            length += row.len() + JOINT.len();
            before < characters
        });
        let taken = taken.count();
        let ids = tokenizer.encode(&rows[..taken].join(JOINT), true)?;
        if ids.len() >= enough || taken == rows.len() {
            return Ok(ids);
        }
        characters = characters.saturating_mul(2);
    }
}
