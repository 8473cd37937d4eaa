//! Windows of evaluation text.

use transmla_checkpoint::TokenBatch;

use crate::error::CalibError;
use crate::text::samples::documents::Documents;
use crate::text::tokens::tokenizer::TextTokenizer;

/// The windows on which perplexity is measured, `[windows, seqlen]`: rows are joined as [`Documents`] are, tokenised as one text
/// (special tokens included) and cut into windows of `seqlen` tokens; the remainder at the end is dropped.
///
/// With `max_windows`, at most that many from the start; no more text is tokenised than they need.
///
/// # Errors
/// [`CalibError::Argument`] if `seqlen` is less than 2 (a window has `seqlen - 1` predictions) or `max_windows` is 0,
/// [`CalibError::TooShort`] if the text is shorter than one window, [`CalibError::Tokenization`] if the tokenizer fails.
pub fn evaluation_windows<'a>(
    rows: impl Into<Documents<'a>>,
    tokenizer: &TextTokenizer,
    seqlen: usize,
    max_windows: Option<usize>,
) -> Result<TokenBatch, CalibError> {
    cut(&rows.into(), tokenizer, seqlen, max_windows, None)
}

/// As [`evaluation_windows`], but every window begins with the token `start` (a BOS) and has `seqlen - 1` tokens of the text, which is
/// tokenised without special tokens: for models that make sense only of text that begins so.
///
/// # Errors
/// Those of [`evaluation_windows`].
pub fn evaluation_windows_from<'a>(
    start: u32,
    rows: impl Into<Documents<'a>>,
    tokenizer: &TextTokenizer,
    seqlen: usize,
    max_windows: Option<usize>,
) -> Result<TokenBatch, CalibError> {
    cut(&rows.into(), tokenizer, seqlen, max_windows, Some(start))
}

fn cut(
    documents: &Documents<'_>,
    tokenizer: &TextTokenizer,
    seqlen: usize,
    max_windows: Option<usize>,
    start: Option<u32>,
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
    let added = usize::from(start.is_some());
    let of_text = seqlen - added;
    let enough = max_windows.and_then(|windows| windows.checked_mul(of_text));
    let joining = match start {
        Some(_) => documents.joining().bare(),
        None => documents.joining(),
    };
    let rows = documents.rows().iter().map(String::as_str);
    let ids = tokenizer.encode_rows(rows, joining, enough)?;
    let windows = (ids.len() / of_text).min(max_windows.unwrap_or(usize::MAX));
    if windows == 0 {
        let found = ids.len() + added;
        return Err(CalibError::TooShort {
            needed: seqlen,
            found,
            hint: match found {
                0 | 1 => "use a longer text".into(),
                tokens => format!("use a longer text or windows of at most {tokens} tokens"),
            },
        });
    }
    let ids = ids[..windows * of_text]
        .chunks_exact(of_text)
        .flat_map(|window| start.iter().chain(window))
        .map(|&id| i64::from(id))
        .collect();
    Ok(TokenBatch::from_ids(ids, windows, seqlen)?)
}
