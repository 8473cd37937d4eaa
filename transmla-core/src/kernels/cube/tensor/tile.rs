//! How the work is cut for matrix instructions.

/// Numbers of a vector: 16 bytes, as memory is read best and as `ldmatrix` reads a row.
pub(in super::super) const VECTOR: usize = 8;

/// Units of a plane.
pub(super) const PLANE: usize = 32;

/// Rows, columns of two neighbouring products, and depth of a matrix instruction.
pub(super) const EDGE: usize = 16;

/// What one cube works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in super::super) struct TensorTile {
    /// Planes of a cube.
    pub(in super::super) planes: usize,
    /// Tiles of 16 query rows.
    pub(in super::super) row_tiles: usize,
    /// Cached tokens of a block.
    pub(in super::super) tokens: usize,
    /// Parts of a key's width that different planes multiply.
    pub(in super::super) slices: usize,
    /// Numbers of a key.
    pub(in super::super) width: usize,
    /// Numbers of a value.
    pub(in super::super) value_width: usize,
    /// Values are the first numbers of their keys.
    pub(in super::super) in_keys: bool,
    /// Scores have a bound.
    pub(in super::super) bounded: bool,
    /// Each plane keeps the queries it multiplies in registers.
    pub(in super::super) keeps_queries: bool,
}

/// Shared memory that the system keeps for each cube.
const RESERVED: usize = 1 << 10;

/// Registers of a processor.
const REGISTERS: usize = 64 << 10;

/// Most registers of a unit.
const MOST_REGISTERS: usize = 255;

/// Registers of a unit beside those that hold its share of a block: addresses, fragments, the softmax.
const OTHER_REGISTERS: usize = 56;

/// What reading queries and writing a part of a sequence costs a cube, in blocks.
const BLOCKS_OF_A_PART: usize = 4;

/// Widest keys of which a processor is to hold several small cubes rather than a large one.
const NARROW: usize = 192;

impl TensorTile {
    /// The best that fits; nothing if none does.
    ///
    /// `rows` meet each key head; `shared` is what a cube may have of shared memory.
    pub(in super::super) fn new(
        rows: usize,
        widths: [usize; 2],
        [in_keys, bounded]: [bool; 2],
        shared: usize,
    ) -> Option<Self> {
        let [width, value_width] = widths;
        // Planes, tokens, slices, and whether queries are kept; measured on an H200. The last ones are for less shared memory.
        let cuts = match width <= NARROW {
            true => [(4, 32, 2, false), (4, 16, 4, false)],
            false => [(8, 32, 4, true), (8, 32, 4, false)],
        };
        let small = [(8, 16, 8, false), (4, 16, 4, false)];
        let row_tiles = match rows.div_ceil(EDGE) {
            1 => [1, 1, 1],
            2 => [2, 1, 1],
            _ => [4, 2, 1],
        };
        let tiles = row_tiles
            .into_iter()
            .flat_map(|row_tiles| cuts.into_iter().chain(small).map(move |cut| (row_tiles, cut)));
        tiles
            .map(|(row_tiles, (planes, tokens, slices, keeps_queries))| Self {
                planes,
                row_tiles,
                tokens,
                slices,
                width,
                value_width,
                in_keys,
                bounded,
                keeps_queries,
            })
            .find(|tile| tile.is_sound() && tile.shared_bytes() <= shared && tile.registers() <= MOST_REGISTERS)
    }

    /// About how many registers a unit takes: a vector has four, a pair of sums two, a pair of queries one.
    fn registers(&self) -> usize {
        let values = if self.in_keys { 0 } else { self.value_loads() };
        let products = self.row_tiles * self.pairs() * 4;
        4 * (self.key_loads() + values) + 2 * (self.own_vectors() + products) + self.kept_vectors() + OTHER_REGISTERS
    }

    /// Cubes that a processor holds, of which one may have `shared` bytes of shared memory.
    pub(in super::super) fn cubes_of_processor(&self, shared: usize) -> usize {
        let by_registers = REGISTERS / (self.registers() * self.units());
        (shared / (self.shared_bytes() + RESERVED)).min(by_registers).max(1)
    }

    /// Pieces that the tokens of a sequence are cut into: of all numbers the one that gives the device least to do in a row, where
    /// it holds `places` cubes at once and has `cubes` to do for each piece.
    pub(in super::super) fn splits(&self, cubes: usize, span: usize, places: usize) -> usize {
        let blocks = span.div_ceil(self.tokens).max(1);
        let most = blocks.div_ceil(BLOCKS_OF_A_PART).min(2 * places.div_ceil(cubes)).max(1);
        let blocks_in_a_row =
            |splits: &usize| (cubes * splits).div_ceil(places) * (blocks.div_ceil(*splits) + BLOCKS_OF_A_PART);
        (1..=most).min_by_key(blocks_in_a_row).unwrap_or(1)
    }

    pub(in super::super) fn units(&self) -> usize {
        self.planes * PLANE
    }

    /// Query rows.
    pub(in super::super) fn rows(&self) -> usize {
        self.row_tiles * EDGE
    }

    pub(super) fn key_vectors(&self) -> usize {
        self.width / VECTOR
    }

    pub(super) fn value_vectors(&self) -> usize {
        self.value_width / VECTOR
    }

    /// Vectors from one key to the next in shared memory. Odd, so that the eight rows which `ldmatrix` reads at once lie in different
    /// banks.
    pub(super) fn key_stride(&self) -> usize {
        self.key_vectors() | 1
    }

    pub(super) fn value_stride(&self) -> usize {
        match self.in_keys {
            true => self.key_stride(),
            false => self.value_vectors() | 1,
        }
    }

    /// Vectors of a block of keys.
    pub(super) fn key_block(&self) -> usize {
        self.tokens * self.key_stride()
    }

    /// Vectors of a block of values that are apart; room for one where there are none.
    pub(super) fn value_block(&self) -> usize {
        match self.in_keys {
            true => 1,
            false => self.tokens * self.value_stride(),
        }
    }

    /// Vectors of the keys of a block that a unit reads.
    pub(super) fn key_loads(&self) -> usize {
        (self.tokens * self.key_vectors()).div_ceil(self.units())
    }

    /// The same of values; one where there are none.
    pub(super) fn value_loads(&self) -> usize {
        match self.in_keys {
            true => 1,
            false => (self.tokens * self.value_vectors()).div_ceil(self.units()),
        }
    }

    /// Depth of a key in matrix instructions.
    pub(super) fn depth(&self) -> usize {
        self.width / EDGE
    }

    /// Those of them that one plane has.
    pub(super) fn steps(&self) -> usize {
        self.depth().div_ceil(self.slices)
    }

    /// Pairs of 8 tokens whose scores one plane computes.
    pub(super) fn pairs(&self) -> usize {
        self.tokens / EDGE * self.slices / self.planes
    }

    /// Pairs of 8 columns of the values, and those that one plane has.
    pub(super) fn columns(&self) -> usize {
        self.value_width / EDGE
    }

    pub(super) fn own_columns(&self) -> usize {
        self.columns().div_ceil(self.planes)
    }

    /// Numbers from one row of scores or weights to the next in shared memory: no two units that write at once meet in a bank.
    pub(super) fn score_stride(&self) -> usize {
        self.tokens + VECTOR
    }

    /// Units that share the softmax of a row.
    pub(super) fn units_of_row(&self) -> usize {
        self.units() / self.rows()
    }

    /// Pairs of scores that each of them has.
    pub(super) fn score_pairs(&self) -> usize {
        self.tokens / 2 / self.units_of_row()
    }

    /// Vectors of 8 queries in shared memory.
    pub(super) fn query_room(&self) -> usize {
        self.rows() * self.key_stride()
    }

    /// Pairs of products, and of weights.
    pub(super) fn product_room(&self) -> usize {
        self.slices * self.weight_room()
    }

    pub(super) fn weight_room(&self) -> usize {
        self.rows() * self.score_stride() / 2
    }

    /// Pairs of queries that a unit keeps in registers; room for one where it keeps none.
    pub(super) fn kept_vectors(&self) -> usize {
        match self.keeps_queries {
            true => self.steps() * self.row_tiles * 4,
            false => 1,
        }
    }

    /// Pairs of weighted sums that a unit has.
    pub(super) fn own_vectors(&self) -> usize {
        self.row_tiles * self.own_columns() * 4
    }

    /// Bytes of shared memory.
    pub(in super::super) fn shared_bytes(&self) -> usize {
        let vectors = self.query_room() + 2 * (self.key_block() + self.value_block());
        16 * vectors + 8 * self.product_room() + 4 * self.weight_room() + 4 * self.rows()
    }

    /// Whether the work can be cut this way.
    pub(in super::super) fn is_sound(&self) -> bool {
        let whole = self.width.is_multiple_of(EDGE) && self.value_width.is_multiple_of(EDGE);
        let planes =
            self.planes.is_multiple_of(self.slices) && self.tokens.is_multiple_of(EDGE * self.planes / self.slices);
        // The units of a row lie in one plane and have whole pairs of scores.
        let softmax = self.units() >= self.rows()
            && self.units_of_row() <= PLANE
            && (self.tokens / 2).is_multiple_of(self.units_of_row());
        whole && planes && softmax && !(self.in_keys && self.value_width > self.width)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a cube may have on a data-centre GPU and on smaller ones of the same instructions.
    const SHARED: [usize; 2] = [227 << 10, 99 << 10];

    /// Latents of many and few heads, grouped and multi-head attention, small heads.
    const SHAPES: [(usize, [usize; 2], bool); 7] = [
        (16, [576, 512], true),
        (32, [576, 512], true),
        (128, [576, 512], true),
        (9, [128, 96], true),
        (4, [128, 128], false),
        (1, [128, 128], false),
        (3, [64, 64], false),
    ];

    #[test]
    fn common_shapes_fit_large_and_small_devices() {
        for shared in SHARED {
            for (rows, widths, in_keys) in SHAPES {
                let tile = TensorTile::new(rows, widths, [in_keys, false], shared).unwrap();
                assert!(tile.is_sound() && tile.shared_bytes() <= shared, "{tile:?}");
                assert!(
                    tile.cubes_of_processor(shared) * tile.shared_bytes() <= shared,
                    "{tile:?}"
                );
            }
        }
    }

    #[test]
    fn others_do_not() {
        // Not in whole matrices, values wider than the keys that are to hold them, and more than registers hold.
        assert!(TensorTile::new(4, [40, 32], [false, false], SHARED[0]).is_none());
        assert!(TensorTile::new(4, [64, 80], [true, false], SHARED[0]).is_none());
        assert!(TensorTile::new(32, [8192, 8192], [true, false], usize::MAX).is_none());
    }

    #[test]
    fn splits_leave_no_processor_idle() {
        let latent = TensorTile::new(32, [576, 512], [true, false], SHARED[0]).unwrap();
        assert_eq!(latent.cubes_of_processor(SHARED[0]), 1);
        // As many sequences as processors: one piece each.
        assert_eq!(latent.splits(128, 4096, 132), 1);
        // 16 sequences, 8 pieces each: 128 cubes.
        assert_eq!(latent.splits(16, 1 << 15, 132), 8);
        // One long sequence: a piece for each.
        assert!((100..=132).contains(&latent.splits(1, 1 << 15, 132)));
        // Nothing to cut.
        assert_eq!(latent.splits(1, 10, 132), 1);
        // Small cubes, of which a processor holds several.
        let grouped = TensorTile::new(4, [128, 128], [false, false], SHARED[0]).unwrap();
        let places = 132 * grouped.cubes_of_processor(SHARED[0]);
        assert_eq!(grouped.splits(16 * 8, 4096, places), 4);
    }
}
