//! Codes of 4 bits: groups of numbers with a scale each.

use pulp::{Arch, NullaryFnOnce};

/// Numbers of a latent that share a scale where they have 4 bits.
pub(super) const GROUP: usize = 16;

/// Bytes of their codes.
pub(super) const GROUP_BYTES: usize = GROUP / 2;

/// A group's share of the token's scale, in units of one over this.
const SHARES: f32 = 255.0;

/// Steps of 4-bit codes on one side of zero. Codes are in the middles of steps, so that all sixteen are used.
const STEPS_INT4: f32 = 8.0;

/// Ranges of a group that are tried: what its largest number is taken for, times it. They are a step of `TRIED_BY` apart.
const LEAST_TRIED: f32 = 0.8;
const TRIED_BY: f32 = 0.04;
const TRIED: usize = 15;
const LARGEST_TRIED: f32 = LEAST_TRIED + TRIED_BY * (TRIED - 1) as f32;

/// What the largest number of a token is multiplied by for the token's scale: its group's share of that may then have any range.
pub(super) const INT4_SCALE: f32 = LARGEST_TRIED / STEPS_INT4 / SHARES;

/// The share of the token's scale that a group of numbers is best rounded with, given one over that scale.
///
/// A range beyond the largest number has longer steps and one below it cuts that number off, and either may happen to have codes nearer to
/// more of the numbers. Of the ranges that are tried, this is the one with the smallest sum of squares of errors; those of all numbers cost
/// alike in the basis that latents are in.
pub(super) fn best_share(group: &[f32], inverse: f32) -> u8 {
    Arch::new().dispatch(BestShare { group, inverse })
}

struct BestShare<'a> {
    group: &'a [f32],
    inverse: f32,
}

impl NullaryFnOnce for BestShare<'_> {
    type Output = u8;

    #[inline(always)]
    fn call(self) -> u8 {
        let mut numbers = [0.0; GROUP];
        let numbers_of_group = &mut numbers[..self.group.len()];
        for (number, given) in numbers_of_group.iter_mut().zip(self.group) {
            *number = given * self.inverse;
        }
        let step = largest(&numbers) / STEPS_INT4;
        let (mut best, mut least) = (0.0, f32::INFINITY);
        for tried in 0..TRIED {
            // Rounded up: only zeros have a share of zero.
            let share = (step * (LEAST_TRIED + TRIED_BY * tried as f32)).ceil().min(SHARES);
            let squares = squares_of_errors(&numbers, self.group.len(), share);
            if squares < least {
                (best, least) = (share, squares);
            }
        }
        best as u8
    }
}

/// Of the first `count` numbers, in units of the token's scale.
#[inline(always)]
fn squares_of_errors(numbers: &[f32; GROUP], count: usize, share: f32) -> f32 {
    let inverse = share.max(1.0).recip();
    let mut squares = [0.0; GROUP];
    for (square, number) in squares.iter_mut().zip(numbers) {
        let error = number - (step_of(*number, inverse) - (STEPS_INT4 - 0.5)) * share;
        *square = error * error;
    }
    squares[count..].fill(0.0);
    // Halved until one is left, which compilers make vectors of.
    let mut half = GROUP / 2;
    while half > 0 {
        for index in 0..half {
            squares[index] += squares[index + half];
        }
        half /= 2;
    }
    squares[0]
}

/// The largest magnitude.
#[inline(always)]
pub(super) fn largest(numbers: &[f32]) -> f32 {
    numbers.iter().fold(0.0, |largest, number| largest.max(number.abs()))
}

/// The step that a number is in, 0 to 15: its code.
#[inline(always)]
fn step_of(number: f32, inverse: f32) -> f32 {
    (number * inverse + STEPS_INT4)
        .floor()
        .clamp(0.0, 2.0 * STEPS_INT4 - 1.0)
}

/// Appends the codes of a group, two to a byte: those of the first half below those of the second.
pub(super) fn encode_int4(group: &[f32], share: u8, inverse: f32, bytes: &mut Vec<u8>) {
    let inverse = inverse / f32::from(share).max(1.0);
    let code = |number: &f32| step_of(*number, inverse) as u8;
    let (low, high) = group.split_at(group.len().div_ceil(2));
    let high = high.iter().map(code).chain(std::iter::once(0));
    bytes.extend(low.iter().zip(high).map(|(low, high)| code(low) | high << 4));
}

#[inline(always)]
pub(super) fn read_int4(codes: &[u8], shares: &[u8], scale: f32, numbers: &mut [f32]) {
    let (whole, rest) = numbers.as_chunks_mut::<GROUP>();
    let (whole_codes, rest_codes) = codes.split_at(whole.len() * GROUP_BYTES);
    let groups = whole_codes.as_chunks::<GROUP_BYTES>().0.iter().zip(whole);
    for ((codes, numbers), share) in groups.zip(shares) {
        read_int4_group(codes, f32::from(*share) * scale, numbers);
    }
    if let (Some(share), false) = (shares.last(), rest.is_empty()) {
        read_int4_group(rest_codes, f32::from(*share) * scale, rest);
    }
}

/// The lower halves of the bytes are the first codes, so that neighbours are read from neighbours.
#[inline(always)]
fn read_int4_group(codes: &[u8], scale: f32, numbers: &mut [f32]) {
    let (low, high) = numbers.split_at_mut(codes.len());
    let number = |code: u8| (f32::from(code) - (STEPS_INT4 - 0.5)) * scale;
    for (number_low, code) in low.iter_mut().zip(codes) {
        *number_low = number(code & 15);
    }
    for (number_high, code) in high.iter_mut().zip(codes) {
        *number_high = number(code >> 4);
    }
}
