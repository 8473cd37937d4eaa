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
    let enough = max_windows.and_then(|windows| windows.checked_mul(seqlen));
    let documents = rows.into();
    let rows = documents.rows().iter().map(String::as_str);
    let ids = tokenizer.encode_rows(rows, documents.joining(), enough)?;
    let windows = (ids.len() / seqlen).min(max_windows.unwrap_or(usize::MAX));
    if windows == 0 {
        return Err(CalibError::TooShort {
            needed: seqlen,
            found: ids.len(),
            hint: match ids.len() {
                0 | 1 => "use a longer text".into(),
                tokens => format!("use a longer text or windows of at most {tokens} tokens"),
            },
        });
    }
    let ids = ids[..windows * seqlen].iter().map(|&id| i64::from(id)).collect();
    Ok(TokenBatch::from_ids(ids, windows, seqlen)?)
}
