//! A copy by all threads, as STREAM does it: what the memory of this machine gives.

use std::cell::RefCell;

use rayon::prelude::*;

use crate::case::{Case, Timed};

/// Numbers that a thread copies at once.
const PIECE: usize = 1 << 18;

pub(crate) fn build(numbers: usize) -> Box<dyn Case> {
    Box::new(Copy {
        from: (0..numbers).map(|number| number as f32).collect(),
        to: RefCell::new(vec![0.0; numbers]),
    })
}

struct Copy {
    from: Vec<f32>,
    to: RefCell<Vec<f32>>,
}

impl Copy {
    fn copy(&self) {
        let mut to = self.to.borrow_mut();
        let pieces = to.par_chunks_mut(PIECE).zip(self.from.par_chunks(PIECE));
        pieces.for_each(|(to, from)| to.copy_from_slice(from));
    }
}

impl Case for Copy {
    fn check(&self) -> Result<(), String> {
        self.copy();
        match *self.to.borrow() == self.from {
            true => Ok(()),
            false => Err("the copy differs".into()),
        }
    }

    fn prepare(&self, _: usize) -> Timed<'_> {
        Box::new(|| self.copy())
    }
}
