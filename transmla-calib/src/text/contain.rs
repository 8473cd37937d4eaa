//! Containing panics of other crates' decoders on damaged files.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// What a decoder said when it panicked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the decoder gave up: {0}")]
pub(crate) struct Panicked(String);

/// Whether this thread is inside a decoder whose panics become errors, so that a panic hook need not report them.
pub fn is_contained() -> bool {
    CONTAINED.get()
}

/// Runs a decoder over a file's bytes; a panic in it becomes an error.
///
/// The parquet and tokenizers crates index and unwrap in places that only damaged files reach. Everything the decoder has
/// built is dropped with the panic, so nothing half-built is seen afterwards.
pub(crate) fn contained<T>(decode: impl FnOnce() -> T) -> Result<T, Panicked> {
    let before = CONTAINED.replace(true);
    let result = catch_unwind(AssertUnwindSafe(decode));
    CONTAINED.set(before);
    result.map_err(|payload| {
        let text = payload.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| payload.downcast_ref::<&str>().copied());
        Panicked(text.unwrap_or("no reason given").to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_an_error() {
        assert_eq!(contained(|| 3), Ok(3));
        assert_eq!(contained(is_contained), Ok(true));
        let nothing: Vec<u8> = Vec::new();
        let error = contained(|| nothing[std::hint::black_box(4)]).unwrap_err().to_string();
        assert!(error.contains("out of bounds"), "{error}");
        assert!(!is_contained());
    }
}
