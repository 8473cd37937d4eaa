//! Reordering interleaved rotary rows to half-split ones.

use transmla_checkpoint::RopeLayout;

/// For rows laid out as `heads` blocks of `[plain, rope]`, where each half-split output row comes from.
pub(super) fn rope_order(layout: RopeLayout, heads: usize, plain: usize, rope: usize) -> Vec<usize> {
    let half = rope / 2;
    let within = |j: usize| match layout {
        RopeLayout::HalfSplit => j,
        RopeLayout::Interleaved if j < half => 2 * j,
        RopeLayout::Interleaved => 2 * (j - half) + 1,
    };
    (0..heads)
        .flat_map(|head| {
            let start = head * (plain + rope);
            (start..start + plain).chain((0..rope).map(move |j| start + plain + within(j)))
        })
        .collect()
}
