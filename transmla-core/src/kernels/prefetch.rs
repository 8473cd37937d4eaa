//! Prefetching: asks for memory that is read next while there is something to compute.

use super::storage::StoredSlice;

/// Bytes of a line of the processor's caches.
const LINE: usize = 64;

/// The memory that is still to be prefetched.
///
/// A block of a cache is multiplied twice: first it comes from memory, then from the processor's second cache. Without
/// prefetching, memory is idle the second time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Prefetch {
    next: *const i8,
    lines: usize,
}

impl Prefetch {
    /// No memory.
    pub fn none() -> Self {
        Self {
            next: std::ptr::null(),
            lines: 0,
        }
    }

    /// `len` of some numbers from `start` on, where they lie; whole rows if rows are quantised.
    pub fn of(numbers: StoredSlice<'_>, start: usize, len: usize) -> Self {
        let (first, size) = numbers.bytes_of(start, len);
        Self {
            next: first,
            lines: size.div_ceil(LINE),
        }
    }

    /// Prefetches the next lines, at most `lines`.
    #[inline(always)]
    pub fn prefetch(&mut self, lines: usize) {
        let lines = lines.min(self.lines);
        for _ in 0..lines {
            prefetch_line(self.next);
            self.next = self.next.wrapping_add(LINE);
        }
        self.lines -= lines;
    }
}

/// A hint alone: whatever the address, nothing is read that the program could see.
#[inline(always)]
fn prefetch_line(address: *const i8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: every x86-64 processor has the instruction, and it never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(address) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_is_prefetched_once() {
        let numbers = [0.0f32; 100];
        let mut prefetch = Prefetch::of(StoredSlice::F32(&numbers), 3, 40);
        assert_eq!((prefetch.next, prefetch.lines), (numbers[3..].as_ptr().cast(), 3));
        prefetch.prefetch(2);
        assert_eq!((prefetch.next, prefetch.lines), (numbers[3 + 32..].as_ptr().cast(), 1));
        prefetch.prefetch(2);
        prefetch.prefetch(2);
        assert_eq!((prefetch.next, prefetch.lines), (numbers[3 + 48..].as_ptr().cast(), 0));
        Prefetch::none().prefetch(1);
    }
}
