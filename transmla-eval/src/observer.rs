//! Progress of an evaluation.

/// Receives the progress of an evaluation.
pub trait Observer {
    /// `done` of `total` units of work are done. `done` rises by one from call to call, `total` stays the same.
    ///
    /// A unit is one batch of windows through one layer, or through the output head.
    fn advance(&mut self, done: u64, total: u64);
}

/// An observer that ignores everything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Observer for Silent {
    fn advance(&mut self, _: u64, _: u64) {}
}

/// Counts units of work for an observer.
pub(crate) struct Progress<'a> {
    done: u64,
    total: u64,
    observer: &'a mut dyn Observer,
}

impl<'a> Progress<'a> {
    /// Nothing done yet of `batches` through `layers` and an output head.
    pub fn new(batches: usize, layers: usize, observer: &'a mut dyn Observer) -> Self {
        Self {
            done: 0,
            total: batches as u64 * (layers as u64 + 1),
            observer,
        }
    }

    /// One more unit is done.
    pub fn step(&mut self) {
        self.done = (self.done + 1).min(self.total);
        self.observer.advance(self.done, self.total);
    }
}
