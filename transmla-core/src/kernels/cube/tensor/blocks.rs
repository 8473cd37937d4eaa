//! Tokens from memory into shared memory. A block waits in the registers of the cube's units while they work on the one before it.

use cubecl::prelude::*;

use super::super::step::{Step, smaller};
use super::tile::TensorTile;

/// What one cube has of a sequence: query rows and tokens.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Part {
    pub(super) first_row: usize,
    /// Tokens of the sequence.
    pub(super) length: usize,
    /// Behind the last token of the part.
    pub(super) end: usize,
    /// Where the sequence's keys begin, and from one to the next.
    pub(super) keys_at: usize,
    pub(super) key_token: usize,
    /// The same of values.
    pub(super) values_at: usize,
    pub(super) value_token: usize,
}

/// The part of a cube that has the rows from `first_row` of a key head, counted over all sequences, and tokens up to `end`.
#[cube]
pub(super) fn part_of_cube(step: &Step, head: usize, first_row: usize, length: usize, end: usize) -> Part {
    Part {
        first_row,
        length,
        end,
        keys_at: head / step.groups * step.key_batch + head % step.groups * step.key_group,
        key_token: step.key_token,
        values_at: head / step.groups * step.value_batch + head % step.groups * step.value_group,
        value_token: step.value_token,
    }
}

/// Reads a block into registers, if there is one at that token.
#[cube]
pub(super) fn ask<E: Float>(
    keys: &[Vector<E, Const<8>>],
    values: &[Vector<E, Const<8>>],
    waiting_keys: &mut Array<Vector<E, Const<8>>>,
    waiting_values: &mut Array<Vector<E, Const<8>>>,
    part: &Part,
    at: usize,
    #[comptime] tile: TensorTile,
) {
    if at < part.end {
        let present = smaller(part.end - at, tile.tokens);
        let (vectors, loads) = comptime!((tile.key_vectors(), tile.key_loads()));
        let keys_at = part.keys_at + at * part.key_token;
        fetch::<E>(
            keys,
            waiting_keys,
            keys_at,
            part.key_token,
            present,
            vectors,
            loads,
            tile,
        );
        if comptime!(!tile.in_keys) {
            let (vectors, loads) = comptime!((tile.value_vectors(), tile.value_loads()));
            let values_at = part.values_at + at * part.value_token;
            fetch::<E>(
                values,
                waiting_values,
                values_at,
                part.value_token,
                present,
                vectors,
                loads,
                tile,
            );
        }
    }
}

/// Puts what waits in registers into one of the two rooms for blocks.
#[cube]
pub(super) fn receive<E: Float>(
    waiting_keys: &Array<Vector<E, Const<8>>>,
    waiting_values: &Array<Vector<E, Const<8>>>,
    key_rooms: &mut Shared<[Vector<E, Const<8>>]>,
    value_rooms: &mut Shared<[Vector<E, Const<8>>]>,
    room: usize,
    #[comptime] tile: TensorTile,
) {
    let at = room * comptime!(tile.key_block());
    let (vectors, stride, loads) = comptime!((tile.key_vectors(), tile.key_stride(), tile.key_loads()));
    place::<E>(waiting_keys, key_rooms, at, vectors, stride, loads, tile);
    if comptime!(!tile.in_keys) {
        let at = room * comptime!(tile.value_block());
        let (vectors, stride, loads) = comptime!((tile.value_vectors(), tile.value_stride(), tile.value_loads()));
        place::<E>(waiting_values, value_rooms, at, vectors, stride, loads, tile);
    }
}

/// Reads the rows of a block, in vectors. Behind the last row that there is it reads that one again, so that nothing in shared
/// memory is left to chance.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "a tensor of a kernel cannot be passed with its strides"
)]
fn fetch<E: Float>(
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
fn place<E: Float>(
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
        if comptime!((load + 1) * tile.units() <= tile.tokens * vectors) || index < comptime!(tile.tokens * vectors) {
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
