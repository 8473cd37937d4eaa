//! Whether there is memory for something large, asked before it is taken: an allocation that fails ends the program.

use std::fmt;

use crate::{system, table};

/// There is not enough memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lacking {
    needed: u64,
    /// Where the system tells.
    available: Option<u64>,
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let needed = table::bytes(self.needed);
        match self.available.filter(|available| *available < self.needed) {
            Some(available) => write!(
                f,
                "{needed} of memory are needed, {} are available",
                table::bytes(available)
            ),
            None => write!(f, "{needed} of memory are needed, more than this process may take"),
        }
    }
}

impl std::error::Error for Lacking {}

/// Checks that this many bytes are there to be had.
///
/// # Errors
/// The system has less memory left, or allows this process less.
pub fn check(needed: u64) -> Result<(), Lacking> {
    let available = system::memory().map(|memory| memory.available);
    let allowed = usize::try_from(needed).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    match allowed && available.is_none_or(|available| needed <= available) {
        true => Ok(()),
        false => Err(Lacking { needed, available }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused() {
        assert_eq!(check(1 << 10), Ok(()));
        let lacking = check(1 << 60).unwrap_err();
        assert!(
            lacking.to_string().contains("1048576.0 TiB of memory are needed"),
            "{lacking}"
        );
        assert!(check(u64::MAX).is_err());
    }
}
