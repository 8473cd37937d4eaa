//! What all kernels that attend to a part of the cache are told, and how they hide and bound scores.

use cubecl::prelude::*;

/// Score of what a row may not see. Not an infinity: WGSL has no literal for one.
pub(super) const HIDDEN: f32 = -3.0e38;

/// Below this a score is a hidden one.
pub(super) const SEEN: f32 = -2.9e38;

/// What a launch says of its tensors and scores. Strides count vectors.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Step {
    /// Query rows that meet a key head.
    pub(super) rows: usize,
    /// New tokens.
    pub(super) new: usize,
    /// Key heads.
    pub(super) groups: usize,
    /// Parts of the tokens of a sequence.
    pub(super) splits: usize,
    /// Tokens that a query sees.
    pub(super) window: usize,
    pub(super) key_batch: usize,
    pub(super) key_group: usize,
    pub(super) key_token: usize,
    pub(super) value_batch: usize,
    pub(super) value_group: usize,
    pub(super) value_token: usize,
    pub(super) scale: f32,
    pub(super) cap: f32,
}

/// `a - b`, at least 0.
#[cube]
pub(super) fn less(a: usize, b: usize) -> usize {
    select(a > b, a - b, 0)
}

/// The smaller of two.
#[cube]
pub(super) fn smaller(a: usize, b: usize) -> usize {
    select(a < b, a, b)
}

/// A score within its bound. Far out tanh is 1 in `f32`, which not every device's tanh knows.
#[cube]
pub(super) fn within_bound(score: f32, cap: f32, #[comptime] bounded: bool) -> f32 {
    if bounded {
        let inside = (score / cap).clamp(-15.0f32, 15.0f32);
        inside.tanh() * cap
    } else {
        score
    }
}

/// Where the part of a sequence begins and ends which one cube has: the tokens that any of the sequence's queries sees, in even
/// parts of whole blocks.
#[cube]
pub(super) fn part_of(length: usize, split: usize, step: &Step, #[comptime] block: usize) -> (usize, usize) {
    let past = less(length + 1, step.new);
    let seen_from = less(past, step.window);
    let blocks = (length - seen_from).div_ceil(block).div_ceil(step.splits);
    let start = seen_from + split * blocks * block;
    let end = smaller(start + blocks * block, length);
    (start, end)
}
