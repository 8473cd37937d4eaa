//! Weighted sums of values: each plane has columns of its own and all rows.

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::scores::add_products;
use super::tile::{EDGE, PLANE, TensorTile};

/// Scales the sums to the rows' new largest scores and adds the weighted values of the block in a room.
#[cube]
#[allow(clippy::too_many_arguments, reason = "the rooms of a cube cannot be passed as one")]
pub(super) fn combine<E: Float>(
    own: &mut Array<Vector<f32, Const<2>>>,
    key_rooms: &Shared<[Vector<E, Const<8>>]>,
    value_rooms: &Shared<[Vector<E, Const<8>>]>,
    room: usize,
    weights: &Shared<[Vector<E, Const<2>>]>,
    change: &Shared<[f32]>,
    #[comptime] tile: TensorTile,
) {
    rescale(own, change, tile);
    if comptime!(tile.in_keys) {
        add_weighted::<E>(own, key_rooms, room * comptime!(tile.key_block()), weights, tile);
    } else {
        add_weighted::<E>(own, value_rooms, room * comptime!(tile.value_block()), weights, tile);
    }
}

/// Scales the sums to the rows' new largest scores, which after the first blocks seldom change.
#[cube]
fn rescale(own: &mut Array<Vector<f32, Const<2>>>, change: &Shared<[f32]>, #[comptime] tile: TensorTile) {
    let lane = UNIT_POS as usize % PLANE;
    let columns = comptime!(tile.own_columns());
    let mut factors = Array::<f32>::new(comptime!(tile.row_tiles * 2));
    let mut least = 1.0f32.runtime();
    #[unroll]
    for half in 0..comptime!(tile.row_tiles * 2) {
        let factor = change[comptime!(half * 8) + lane / 4];
        factors[half] = factor;
        least = least.min(factor);
    }
    // No factor is above 1.
    if plane_any(least < 1.0f32) {
        #[unroll]
        for half in 0..comptime!(tile.row_tiles * 2) {
            let factor = Vector::new(factors[half]);
            #[unroll]
            for index in 0..comptime!(columns * 2) {
                let index = comptime!((half / 2 * columns * 2 + index) * 2 + half % 2);
                own[index] *= factor;
            }
        }
    }
}

/// Divides the sums by the rows' sums of weights, of which each unit knows that of the row whose softmax it shares.
#[cube]
pub(super) fn divide(
    own: &mut Array<Vector<f32, Const<2>>>,
    change: &mut Shared<[f32]>,
    total: f32,
    #[comptime] tile: TensorTile,
) {
    let columns = comptime!(tile.own_columns());
    // The last factors have been read by all.
    sync_cube();
    let place = UNIT_POS as usize % comptime!(tile.units_of_row());
    if place == 0 {
        // A row that sees no token has no weights.
        change[UNIT_POS as usize / comptime!(tile.units_of_row())] = select(total > 0.0f32, 1.0f32 / total, 1.0f32);
    }
    sync_cube();
    let lane = UNIT_POS as usize % PLANE;
    #[unroll]
    for half in 0..comptime!(tile.row_tiles * 2) {
        let share = Vector::new(change[comptime!(half * 8) + lane / 4]);
        #[unroll]
        for index in 0..comptime!(columns * 2) {
            let index = comptime!((half / 2 * columns * 2 + index) * 2 + half % 2);
            own[index] *= share;
        }
    }
}

/// Adds the weighted values of a block.
#[cube]
fn add_weighted<E: Float>(
    own: &mut Array<Vector<f32, Const<2>>>,
    block: &Shared<[Vector<E, Const<8>>]>,
    block_at: usize,
    weights: &Shared<[Vector<E, Const<2>>]>,
    #[comptime] tile: TensorTile,
) {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let plane = UNIT_POS as usize / PLANE;
    let lane = UNIT_POS as usize % PLANE;
    let columns = comptime!(tile.own_columns());
    #[unroll]
    for step in 0..comptime!(tile.tokens / EDGE) {
        let mut rows = Array::<Vector<E, Const<2>>>::new(comptime!(tile.row_tiles * 4));
        #[unroll]
        for row_tile in 0..tile.row_tiles {
            let row = row_tile * EDGE + lane % EDGE;
            let at = row * comptime!(tile.score_stride() / 2) + step * 8 + lane / EDGE * 4;
            let fragment = definition.load_matrix::<_, Const<2>>(&weights[at..at + 4], MatrixIdent::A, 4usize, false);
            #[unroll]
            for register in 0..4usize {
                rows[comptime!(row_tile * 4 + register)] = fragment[register];
            }
        }
        let value_at = block_at + (step * EDGE + lane % EDGE) * comptime!(tile.value_stride()) + lane / EDGE;
        #[unroll]
        for column in 0..columns {
            let place = plane + column * tile.planes;
            // The same for all lanes of a plane.
            if comptime!(tile.columns().is_multiple_of(tile.planes)) || place < comptime!(tile.columns()) {
                let at = value_at + 2 * place;
                let values = definition.load_matrix::<_, Const<2>>(&block[at..at + 1], MatrixIdent::B, 4usize, true);
                #[unroll]
                for row_tile in 0..tile.row_tiles {
                    add_products::<E>(
                        own,
                        comptime!((row_tile * columns + column) * 4),
                        &rows,
                        comptime!(row_tile * 4),
                        &values,
                    );
                }
            }
        }
    }
}

/// Writes the rows that there are.
#[cube]
pub(super) fn write_rows(
    own: &Array<Vector<f32, Const<2>>>,
    sums: &mut [Vector<f32, Const<2>>],
    first: usize,
    stride: usize,
    present: usize,
    #[comptime] tile: TensorTile,
) {
    let plane = UNIT_POS as usize / PLANE;
    let lane = UNIT_POS as usize % PLANE;
    let columns = comptime!(tile.own_columns());
    #[unroll]
    for row_tile in 0..tile.row_tiles {
        #[unroll]
        for column in 0..columns {
            let place = plane + column * tile.planes;
            if place < comptime!(tile.columns()) {
                #[unroll]
                for half in 0..2usize {
                    #[unroll]
                    for lower in 0..2usize {
                        let row = comptime!(row_tile * EDGE + lower * 8) + lane / 4;
                        if row < present {
                            let at = (first + row * stride) * comptime!(tile.value_width / 2);
                            sums[at + place * 8 + half * 4 + lane % 4] =
                                own[comptime!((row_tile * columns + column) * 4 + half * 2 + lower)];
                        }
                    }
                }
            }
        }
    }
}
