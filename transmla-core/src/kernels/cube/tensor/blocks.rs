//! Tokens from memory into shared memory. A block waits in the registers of the cube's units while they work on the one before it.

use cubecl::prelude::*;

use super::super::step::smaller;
use super::tile::TensorTile;

/// Reads the rows of a block, in vectors. Behind the last row that there is it reads that one again, so that nothing in shared
/// memory is left to chance.
#[cube]
pub(super) fn fetch<E: Float>(
    rows: &[Vector<E, Const<8>>],
    waiting: &mut Array<Vector<E, Const<8>>>,
    at: usize,
    stride: usize,
    present: usize,
    #[comptime] vectors: usize,
    #[comptime] loads: usize,
    #[comptime] tile: TensorTile,
) {
    let last = present * vectors - 1;
    #[unroll]
    for load in 0..loads {
        let index = smaller(UNIT_POS as usize + load * comptime!(tile.units()), last);
        waiting[load] = rows[at + index / vectors * stride + index % vectors];
    }
}

/// Puts them into one of the two rooms of a block.
#[cube]
pub(super) fn place<E: Float>(
    waiting: &Array<Vector<E, Const<8>>>,
    block: &mut Shared<[Vector<E, Const<8>>]>,
    at: usize,
    #[comptime] vectors: usize,
    #[comptime] stride: usize,
    #[comptime] loads: usize,
    #[comptime] tile: TensorTile,
) {
    #[unroll]
    for load in 0..loads {
        let index = UNIT_POS as usize + load * comptime!(tile.units());
        let place = at + index / vectors * stride + index % vectors;
        if comptime!((load + 1) * tile.units() <= tile.tokens * vectors) {
            block[place] = waiting[load];
        } else if index < comptime!(tile.tokens * vectors) {
            block[place] = waiting[load];
        }
    }
}

/// The query rows of a tile in the format of the cache, zeros behind the last.
#[cube]
pub(super) fn read_queries<E: Float>(
    q: &[Vector<f32, Const<8>>],
    queries: &mut Shared<[Vector<E, Const<8>>]>,
    first: usize,
    present: usize,
    #[comptime] tile: TensorTile,
) {
    let vectors = comptime!(tile.key_vectors());
    let mut index = UNIT_POS as usize;
    while index < comptime!(tile.rows() * vectors) {
        let row = index / vectors;
        let mut query = Vector::<f32, Const<8>>::new(0.0f32);
        if row < present {
            query = q[first * vectors + index];
        }
        queries[row * comptime!(tile.key_stride()) + index % vectors] = Vector::<E, Const<8>>::cast_from(query);
        index += comptime!(tile.units());
    }
}
