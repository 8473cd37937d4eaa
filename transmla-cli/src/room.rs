//! Whether there is memory for something large, asked before it is taken: an allocation that fails ends the program.

use std::fmt;

use crate::table;

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
    let available = std::fs::read_to_string("/proc/meminfo").ok();
    let available = available.and_then(|text| available_in(&text));
    let allowed = usize::try_from(needed).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok());
    match allowed && available.is_none_or(|available| needed <= available) {
        true => Ok(()),
        false => Err(Lacking { needed, available }),
    }
}

fn available_in(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
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

    #[test]
    fn reads_what_is_available() {
        assert_eq!(
            available_in("MemTotal: 9 kB\nMemAvailable:    2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(available_in("MemTotal: 9 kB\n"), None);
    }
}
