//! Which sequences of a text are held out, and in which order the others are trained on.

use crate::heal::splitmix::SplitMix;

/// A text's sequences by index, divided.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Division {
    /// Those that are trained on.
    pub training: Vec<usize>,
    /// Those that pick the step.
    pub held_out: Vec<usize>,
    seed: u64,
}

impl Division {
    /// A share of the sequences is held out, drawn by a seed: at least one, and at least one is trained on. Nothing for fewer
    /// than two.
    pub fn of(sequences: usize, share: f64, seed: u64) -> Option<Self> {
        if sequences < 2 {
            return None;
        }
        let count = ((share * sequences as f64).round() as usize).clamp(1, sequences - 1);
        let mut order: Vec<usize> = (0..sequences).collect();
        shuffle(&mut order, seed);
        let mut held_out = order.split_off(sequences - count);
        held_out.sort_unstable();
        order.sort_unstable();
        Some(Self {
            training: order,
            held_out,
            seed,
        })
    }

    /// The sequences of a step, by its index: each is seen once before any is seen again, in another order every time.
    pub fn of_step(&self, step: usize, batch: usize) -> Vec<usize> {
        let count = self.training.len();
        let mut order = Vec::new();
        let mut of_pass = None;
        let places = step * batch..(step + 1) * batch;
        places
            .map(|place| {
                let pass = place / count;
                if of_pass != Some(pass) {
                    order = self.training.clone();
                    // Another stream than that of the division.
                    shuffle(
                        &mut order,
                        !self.seed ^ (pass as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
                    );
                    of_pass = Some(pass);
                }
                order[place % count]
            })
            .collect()
    }
}

/// Fisher and Yates, by splitmix64.
fn shuffle(items: &mut [usize], seed: u64) {
    let mut random = SplitMix::new(seed);
    for last in (1..items.len()).rev() {
        items.swap(last, (random.draw() % (last as u64 + 1)) as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sequence_is_in_one_part() {
        let division = Division::of(40, 0.1, 42).unwrap();
        assert_eq!((division.training.len(), division.held_out.len()), (36, 4));
        let mut all = [division.training.clone(), division.held_out.clone()].concat();
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<_>>());
        assert_ne!(division, Division::of(40, 0.1, 43).unwrap());
        assert!(Division::of(1, 0.5, 0).is_none());
        let least = Division::of(2, 0.001, 0).unwrap();
        assert_eq!((least.training.len(), least.held_out.len()), (1, 1));
    }

    #[test]
    fn passes_see_everything_once_and_in_another_order() {
        let division = Division::of(24, 0.15, 7).unwrap();
        let seen: Vec<usize> = (0..10).flat_map(|step| division.of_step(step, 4)).collect();
        let (first, second) = (&seen[..20], &seen[20..]);
        assert_ne!(first, second);
        for pass in [first, second] {
            let mut sorted = pass.to_vec();
            sorted.sort_unstable();
            assert_eq!(sorted, division.training);
        }
        // A step follows from its index alone.
        assert_eq!(division.of_step(7, 4), seen[28..32]);
    }
}
