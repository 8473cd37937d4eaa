//! How the work is cut to fit a device.

/// Most query rows of a cube: their sums are kept in registers.
const MOST_ROWS: usize = 16;

/// Query rows that one unit multiplies with a key it has read.
const ROW_BLOCK: usize = 4;

/// Most tokens of a block.
const MOST_TOKENS: usize = 64;

/// Most shared memory that a cube takes, so that a processor holds two or more.
const MOST_SHARED: usize = 96 << 10;

/// Most of it that a block of keys takes.
const MOST_BLOCK: usize = 48 << 10;

/// Cubes for each processor that a launch should have.
const CUBES_PER_PROCESSOR: usize = 4;

/// Processors of a device that does not say.
const PROCESSORS: usize = 32;

/// What a device offers to a cube.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Bytes of shared memory.
    pub(super) shared: usize,
    pub(super) units: usize,
    pub(super) processors: Option<usize>,
}

/// What one cube works on. Widths count vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Tile {
    /// Units of a cube.
    pub(super) units: usize,
    /// Query rows, a power of two.
    pub(super) rows: usize,
    /// Those of them that a unit takes at once for scores.
    pub(super) row_block: usize,
    /// Cached tokens that are read at once, a power of two.
    pub(super) tokens: usize,
    /// Parts of a key's width that different units multiply.
    pub(super) slices: usize,
    /// Of a key.
    pub(super) width: usize,
    /// Of a value.
    pub(super) value_width: usize,
    /// Units side by side along a value.
    pub(super) columns: usize,
    /// Vectors of a value that each of them has.
    pub(super) column_blocks: usize,
    /// Parts of a block's tokens whose values different units add up.
    pub(super) token_slices: usize,
    /// Values are the first numbers of their keys.
    pub(super) in_keys: bool,
    /// Scores have a bound.
    pub(super) bounded: bool,
}

impl Tile {
    /// The largest that fits; nothing if none does.
    ///
    /// `rows` meet each key head, vectors have `vector` numbers, and the cache's numbers `bytes` bytes.
    pub(super) fn new(
        rows: usize,
        [width, value_width]: [usize; 2],
        vector: usize,
        bytes: usize,
        [in_keys, bounded]: [bool; 2],
        limits: Limits,
    ) -> Option<Self> {
        let most_units = if value_width > 128 { 256 } else { 128 };
        let units = power_below(most_units.min(limits.units))?;
        let shared = limits.shared.min(MOST_SHARED);
        let row_bytes = width.max(value_width) * vector * size_of::<f32>();
        let rows = powers_from(MOST_ROWS.min(rows.next_power_of_two()))
            .find(|rows| *rows == 1 || rows * row_bytes <= shared / 2)?;
        let columns = units.min(value_width);
        let tile = |tokens: usize| {
            let row_block = rows.min(ROW_BLOCK);
            Self {
                units,
                rows,
                row_block,
                tokens,
                slices: (units / (tokens * (rows / row_block))).clamp(1, width),
                width,
                value_width,
                columns,
                column_blocks: value_width.div_ceil(columns),
                token_slices: (units / columns).min(tokens),
                in_keys,
                bounded,
            }
        };
        powers_from(MOST_TOKENS).map(tile).find(|tile| {
            let block = tile.block_len() * vector * bytes;
            let scores = (tile.slices + 1) * rows * tile.tokens + 3 * rows;
            block <= MOST_BLOCK && rows * row_bytes + block + scores * size_of::<f32>() <= shared
        })
    }

    /// Vectors of the room for queries, which later takes the sums of values.
    pub(super) fn query_len(&self) -> usize {
        self.rows * self.width.max(self.value_width)
    }

    /// Vectors from one key of a block to the next: one more than it has, so that units that read the same part of
    /// neighbouring keys do not meet in one bank.
    pub(super) fn key_stride(&self) -> usize {
        self.width + 1
    }

    /// Vectors of the room for a block of keys.
    pub(super) fn block_len(&self) -> usize {
        self.tokens * self.key_stride()
    }

    /// Pieces that the tokens of a sequence are cut into, so that `cubes` of them fill the device.
    pub(super) fn splits(&self, cubes: usize, span: usize, limits: Limits) -> usize {
        let wanted = CUBES_PER_PROCESSOR * limits.processors.unwrap_or(PROCESSORS);
        let most = span.div_ceil(4 * self.tokens).max(1);
        wanted.div_ceil(cubes.max(1)).clamp(1, most)
    }
}

/// Powers of two from one down to 1.
fn powers_from(largest: usize) -> impl Iterator<Item = usize> {
    std::iter::successors(Some(largest), |power| (*power > 1).then_some(power / 2))
}

/// The largest power of two that is not above a number.
fn power_below(number: usize) -> Option<usize> {
    number.checked_ilog2().map(|exponent| 1 << exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(shared: usize) -> Limits {
        Limits {
            shared,
            units: 256,
            processors: Some(132),
        }
    }

    /// A latent of 512 + 64 and 128 heads, from the least that WebGPU promises to a data-centre GPU.
    #[test]
    fn fits_from_small_devices_to_large_ones() {
        for (shared, rows) in [(16 << 10, 2), (32 << 10, 4), (48 << 10, 8), (227 << 10, 16)] {
            let tile = Tile::new(128, [144, 128], 4, 4, [true, false], limits(shared)).unwrap();
            assert_eq!(tile.rows, rows, "{shared}");
            assert!(tile.tokens >= 4, "{tile:?}");
        }
        assert!(Tile::new(1, [4096, 4096], 4, 4, [true, false], limits(16 << 10)).is_none());
    }

    #[test]
    fn splits_fill_the_device_and_stay_long() {
        let tile = Tile::new(3, [16, 16], 4, 2, [false, false], limits(48 << 10)).unwrap();
        assert_eq!(tile.splits(3, 10, limits(0)), 1);
        assert!(tile.splits(3, 1 << 17, limits(0)) >= 132);
        assert_eq!(tile.splits(1000, 1 << 17, limits(0)), 1);
    }
}
