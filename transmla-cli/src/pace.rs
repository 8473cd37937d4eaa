//! How much time is left, from what has been done so far.

use crate::table;

/// Least seconds that something must have been going on before they tell anything.
const LEAST_SECONDS: f64 = 2.0;

/// Least seconds between two marks that count.
const INTERVAL: f64 = 0.5;

/// How much of the difference to a new estimate is believed: what is shown moves little at once.
const BELIEF: f64 = 0.3;

/// The speed of something that takes its time, by marks of a share that is done, 0 to 1. Times are seconds from any start.
#[derive(Debug, Default)]
pub struct Pace {
    /// The mark that speed is measured from.
    origin: Option<(f64, f64)>,
    /// When the last mark came.
    last: f64,
    /// When everything will be done.
    finish: Option<f64>,
}

impl Pace {
    /// So much is done now.
    pub fn mark(&mut self, now: f64, done: f64) {
        let Some((start, already)) = self.origin else {
            (self.origin, self.last) = (Some((now, done)), now);
            return;
        };
        if done <= already || now - start < LEAST_SECONDS || now - self.last < INTERVAL {
            return;
        }
        self.last = now;
        let estimate = now + (1.0 - done) * (now - start) / (done - already);
        self.finish = Some(match self.finish {
            None => estimate,
            Some(before) => before + BELIEF * (estimate - before),
        });
    }

    /// What was done up to the next mark says nothing about the rest: it was there already.
    pub fn forget(&mut self) {
        *self = Self::default();
    }

    /// Seconds until everything is done; nothing as long as that cannot be known, or once it should have been.
    pub fn left(&self, now: f64) -> Option<f64> {
        self.finish.map(|finish| finish - now).filter(|left| *left > 0.0)
    }
}

/// What is left, for people: coarse, so that it does not flicker.
pub fn left_text(seconds: f64) -> String {
    format!("{} left", table::about(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_before_it_is_known() {
        let mut pace = Pace::default();
        for (now, done) in [(0.0, 0.0), (0.1, 0.001), (1.9, 0.01)] {
            pace.mark(now, done);
            assert_eq!(pace.left(now), None);
        }
        pace.mark(10.0, 0.1);
        assert_eq!(pace.left(10.0), Some(90.0));
        // The clock goes on between marks.
        assert_eq!(pace.left(40.0), Some(60.0));
        assert_eq!(pace.left(101.0), None);
    }

    #[test]
    fn a_slow_part_moves_it_little() {
        let mut pace = Pace::default();
        pace.mark(0.0, 0.0);
        pace.mark(10.0, 0.1);
        pace.mark(40.0, 0.2);
        let left = pace.left(40.0).unwrap();
        assert!((60.0..100.0).contains(&left), "{left}");
    }

    #[test]
    fn what_was_there_already_does_not_count() {
        let mut pace = Pace::default();
        pace.mark(0.0, 0.0);
        pace.mark(3.0, 0.5);
        pace.forget();
        assert_eq!(pace.left(3.0), None);
        pace.mark(3.0, 0.5);
        pace.mark(13.0, 0.6);
        assert_eq!(pace.left(13.0).map(f64::round), Some(40.0));
    }
}
