//! What a cube does with values: weighted sums in the registers of its units, and how they leave it.

use cubecl::prelude::*;

use super::tile::Tile;

/// Scales a unit's sums to the rows' new largest scores.
#[cube]
fn rescale<N: Size>(own: &mut Array<Vector<f32, N>>, change: &Shared<[f32]>, #[comptime] tile: Tile) {
    #[unroll]
    for row in 0..tile.rows {
        let factor = Vector::new(change[row]);
        #[unroll]
        for c in 0..tile.column_blocks {
            let index = comptime!(row * tile.column_blocks + c);
            own[index] *= factor;
        }
    }
}

/// Adds one value, times each row's weight of its token.
#[cube]
fn add_value<N: Size>(
    own: &mut Array<Vector<f32, N>>,
    value: Vector<f32, N>,
    weights: &Shared<[f32]>,
    token: usize,
    #[comptime] column_block: usize,
    #[comptime] tile: Tile,
) {
    #[unroll]
    for row in 0..tile.rows {
        let index = comptime!(row * tile.column_blocks + column_block);
        own[index] += value * Vector::new(weights[row * tile.tokens + token]);
    }
}

/// Adds the weighted values of a block, which are the first numbers of its keys, to a unit's sums.
#[cube]
pub(super) fn combine_keys<E: Float, N: Size>(
    own: &mut Array<Vector<f32, N>>,
    block: &Shared<[Vector<E, N>]>,
    weights: &Shared<[f32]>,
    change: &Shared<[f32]>,
    present: usize,
    #[comptime] tile: Tile,
) {
    rescale::<N>(own, change, tile);
    let column = UNIT_POS as usize % tile.columns;
    let slice = UNIT_POS as usize / tile.columns;
    if slice < tile.token_slices {
        let mut token = slice;
        while token < present {
            #[unroll]
            for c in 0..tile.column_blocks {
                let part = column + c * tile.columns;
                if part < tile.value_width {
                    let value = Vector::<f32, N>::cast_from(block[token * comptime!(tile.key_stride()) + part]);
                    add_value::<N>(own, value, weights, token, c, tile);
                }
            }
            token += tile.token_slices;
        }
    }
}

/// The same of values in rows of their own.
#[cube]
#[allow(clippy::too_many_arguments, reason = "the rooms of a cube cannot be passed as one")]
pub(super) fn combine_values<E: Float, N: Size>(
    own: &mut Array<Vector<f32, N>>,
    values: &[Vector<E, N>],
    at: usize,
    stride: usize,
    weights: &Shared<[f32]>,
    change: &Shared<[f32]>,
    present: usize,
    #[comptime] tile: Tile,
) {
    rescale::<N>(own, change, tile);
    let column = UNIT_POS as usize % tile.columns;
    let slice = UNIT_POS as usize / tile.columns;
    if slice < tile.token_slices {
        let mut token = slice;
        while token < present {
            #[unroll]
            for c in 0..tile.column_blocks {
                let part = column + c * tile.columns;
                if part < tile.value_width {
                    let value = Vector::<f32, N>::cast_from(values[at + token * stride + part]);
                    add_value::<N>(own, value, weights, token, c, tile);
                }
            }
            token += tile.token_slices;
        }
    }
}

/// The sums of all units, `[rows, d_v]`, where queries were.
#[cube]
pub(super) fn gather<N: Size>(
    own: &Array<Vector<f32, N>>,
    sums: &mut Shared<[Vector<f32, N>]>,
    #[comptime] tile: Tile,
) {
    let column = UNIT_POS as usize % tile.columns;
    let slice = UNIT_POS as usize / tile.columns;
    for turn in 0..tile.token_slices {
        sync_cube();
        if slice == turn {
            #[unroll]
            for row in 0..tile.rows {
                #[unroll]
                for c in 0..tile.column_blocks {
                    let part = column + c * tile.columns;
                    if part < tile.value_width {
                        let mut sum = own[comptime!(row * tile.column_blocks + c)];
                        if turn > 0 {
                            sum += sums[row * tile.value_width + part];
                        }
                        sums[row * tile.value_width + part] = sum;
                    }
                }
            }
        }
    }
    sync_cube();
}

/// Writes the rows that there are.
#[cube]
pub(super) fn write_rows<N: Size>(
    from: &Shared<[Vector<f32, N>]>,
    sums: &mut [Vector<f32, N>],
    first: usize,
    stride: usize,
    present: usize,
    #[comptime] tile: Tile,
) {
    let mut index = UNIT_POS as usize;
    while index < comptime!(tile.rows * tile.value_width) {
        let row = index / tile.value_width;
        if row < present {
            sums[(first + row * stride) * tile.value_width + index % tile.value_width] = from[index];
        }
        index += tile.units;
    }
}
