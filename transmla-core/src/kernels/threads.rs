//! The threads of the CPU, for work of which no piece takes long.

use burn::tensor::Device;
use rayon::prelude::*;

/// Multiplications that are not worth waking another thread for.
pub(super) const SERIAL: usize = 1 << 21;

/// Runs work of many small pieces among the threads that share each of them.
///
/// A thread from outside waits for those threads at every piece, and finds them asleep; from among them, a piece is handed on
/// in less than a microsecond. On other devices the calling thread goes on: they order work by the thread that it comes from.
pub(crate) fn among_threads<T: Send>(device: &Device, run: impl FnOnce() -> T + Send) -> T {
    match *device == Device::flex() {
        true => rayon::scope(|_| run()),
        false => run(),
    }
}

/// Calls `run` with each piece of `target` and its index, by all threads if `work` multiplications are worth it.
pub(crate) fn for_each_piece(
    target: &mut [f32],
    size: usize,
    work: usize,
    run: impl Fn(usize, &mut [f32]) + Send + Sync,
) {
    let each = |(index, piece): (usize, &mut [f32])| run(index, piece);
    match work < SERIAL {
        true => target.chunks_exact_mut(size).enumerate().for_each(each),
        false => target.par_chunks_exact_mut(size).enumerate().for_each(each),
    }
}
