//! Reordering interleaved rotary rows to half-split ones.

use transmla_checkpoint::RopeLayout;

/// For rows laid out as `heads` blocks of `[plain, rope]`, where each half-split output row comes from.
pub(super) fn rope_order(layout: RopeLayout, heads: usize, plain: usize, rope: usize) -> Vec<usize> {
    (0..heads)
        .flat_map(|head| {
            let start = head * (plain + rope);
            let rotary = (0..rope).map(move |j| start + plain + layout.index_of_half_split(j, rope));
            (start..start + plain).chain(rotary)
        })
        .collect()
}
