//! The kernel: a cube has some query rows of one key head and a part of its tokens.
//!
//! The planes share the products of queries and keys by tokens and by the numbers of a key, the softmax by rows, and the weighted sums
//! by columns. Between two barriers lie either the weighted sums of one block and the products of the next, which do not need
//! each other, or the softmax of the next and the arrival of the one behind it, which has been under way all the time.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::step::{HIDDEN, Step, part_of, smaller};
use super::blocks::{fetch, place, read_queries};
use super::scores::{keep_queries, multiply, weigh};
use super::tile::TensorTile;
use super::values::{combine, write_rows};

/// Weighted sums of values and their statistics, as the kernel of vectors gives them (`attend_part`), which says what the operands are.
/// Strides count vectors of 8.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "the signature of a kernel is its bindings")]
pub(in super::super) fn attend_part_tensor<E: Float>(
    q: &[Vector<f32, Const<8>>],
    keys: &[Vector<E, Const<8>>],
    values: &[Vector<E, Const<8>>],
    lengths: &[u32],
    sums: &mut [Vector<f32, Const<2>>],
    statistics: &mut [f32],
    step: Step,
    #[comptime] tile: TensorTile,
    #[define(E)] _dtype: ElemType,
) {
    let split = CUBE_POS_X as usize;
    let first_row = CUBE_POS_Y as usize * comptime!(tile.rows());
    let head = CUBE_POS_Z as usize;
    let length = lengths[head / step.groups] as usize;

    let mut queries = Shared::<[Vector<E, Const<8>>]>::new_aligned_slice(comptime!(tile.query_room()), 16usize);
    let mut key_rooms = Shared::<[Vector<E, Const<8>>]>::new_aligned_slice(comptime!(2 * tile.key_block()), 16usize);
    let mut value_rooms =
        Shared::<[Vector<E, Const<8>>]>::new_aligned_slice(comptime!(2 * tile.value_block()), 16usize);
    let mut products = Shared::<[Vector<f32, Const<2>>]>::new_aligned_slice(comptime!(tile.product_room()), 16usize);
    let mut weights = Shared::<[Vector<E, Const<2>>]>::new_aligned_slice(comptime!(tile.weight_room()), 16usize);
    let mut change = Shared::<[f32]>::new_slice(comptime!(tile.rows()));
    let mut waiting_keys = Array::<Vector<E, Const<8>>>::new(comptime!(tile.key_loads()));
    let mut waiting_values = Array::<Vector<E, Const<8>>>::new(comptime!(tile.value_loads()));
    let mut kept = Array::<Vector<E, Const<2>>>::new(comptime!(tile.kept_vectors()));
    let mut own = Array::<Vector<f32, Const<2>>>::new(comptime!(tile.own_vectors()));
    #[unroll]
    for index in 0..comptime!(tile.own_vectors()) {
        own[index] = Vector::new(0.0f32);
    }
    // The largest score of the row whose softmax this unit shares, and its part of the sum of weights.
    let mut row = Array::<f32>::new(2usize);
    row[0] = HIDDEN.runtime();
    row[1] = 0.0f32.runtime();

    let (start, end) = part_of(length, split, &step, tile.tokens);
    let keys_at = head / step.groups * step.key_batch + head % step.groups * step.key_group;
    let values_at = head / step.groups * step.value_batch + head % step.groups * step.value_group;
    let behind = start + tile.tokens;
    if start < end {
        ask::<E>(
            keys,
            &mut waiting_keys,
            keys_at,
            step.key_token,
            start,
            end,
            false,
            tile,
        );
        ask::<E>(
            values,
            &mut waiting_values,
            values_at,
            step.value_token,
            start,
            end,
            true,
            tile,
        );
    }
    read_queries::<E>(
        q,
        &mut queries,
        head * step.rows + first_row,
        step.rows - first_row,
        tile,
    );
    if start < end {
        receive::<E>(&waiting_keys, &mut key_rooms, 0usize.runtime(), false, tile);
        receive::<E>(&waiting_values, &mut value_rooms, 0usize.runtime(), true, tile);
        ask::<E>(
            keys,
            &mut waiting_keys,
            keys_at,
            step.key_token,
            behind,
            end,
            false,
            tile,
        );
        ask::<E>(
            values,
            &mut waiting_values,
            values_at,
            step.value_token,
            behind,
            end,
            true,
            tile,
        );
    }
    sync_cube();
    if start < end {
        keep_queries::<E>(&queries, &mut kept, tile);
        multiply::<E>(&queries, &kept, &key_rooms, 0usize.runtime(), &mut products, tile);
        sync_cube();
        weigh::<E>(
            &products,
            &mut weights,
            &mut change,
            &mut row,
            first_row,
            start,
            end,
            length,
            &step,
            tile,
        );
        let mut at = start;
        let mut next = behind;
        // Which room has the block whose weights are there.
        let mut room = 0usize.runtime();
        while next < end {
            let other = 1 - room;
            receive::<E>(&waiting_keys, &mut key_rooms, other, false, tile);
            receive::<E>(&waiting_values, &mut value_rooms, other, true, tile);
            ask::<E>(
                keys,
                &mut waiting_keys,
                keys_at,
                step.key_token,
                next + tile.tokens,
                end,
                false,
                tile,
            );
            ask::<E>(
                values,
                &mut waiting_values,
                values_at,
                step.value_token,
                next + tile.tokens,
                end,
                true,
                tile,
            );
            sync_cube();
            if comptime!(tile.in_keys) {
                combine::<E>(
                    &mut own,
                    &key_rooms,
                    room * comptime!(tile.key_block()),
                    &weights,
                    &change,
                    tile,
                );
            } else {
                combine::<E>(
                    &mut own,
                    &value_rooms,
                    room * comptime!(tile.value_block()),
                    &weights,
                    &change,
                    tile,
                );
            }
            multiply::<E>(
                &queries,
                &kept,
                &key_rooms,
                other * comptime!(tile.key_block()),
                &mut products,
                tile,
            );
            sync_cube();
            weigh::<E>(
                &products,
                &mut weights,
                &mut change,
                &mut row,
                first_row,
                next,
                end,
                length,
                &step,
                tile,
            );
            at = next;
            next = at + tile.tokens;
            room = other;
        }
        sync_cube();
        if comptime!(tile.in_keys) {
            combine::<E>(
                &mut own,
                &key_rooms,
                room * comptime!(tile.key_block()),
                &weights,
                &change,
                tile,
            );
        } else {
            combine::<E>(
                &mut own,
                &value_rooms,
                room * comptime!(tile.value_block()),
                &weights,
                &change,
                tile,
            );
        }
    }

    let present = step.rows - first_row;
    let first = (head * step.rows + first_row) * step.splits + split;
    write_rows(&own, sums, first, step.splits, present, tile);
    write_statistics(&row, statistics, first, step.splits, present, tile);
}

/// Reads a block of keys or values into registers, if there is one there.
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "tensors of a kernel cannot be passed with their strides"
)]
fn ask<E: Float>(
    rows: &[Vector<E, Const<8>>],
    waiting: &mut Array<Vector<E, Const<8>>>,
    head_at: usize,
    stride: usize,
    at: usize,
    end: usize,
    #[comptime] values: bool,
    #[comptime] tile: TensorTile,
) {
    if comptime!(!(values && tile.in_keys)) {
        let (vectors, loads) = comptime!(match values {
            true => (tile.value_vectors(), tile.value_loads()),
            false => (tile.key_vectors(), tile.key_loads()),
        });
        if at < end {
            fetch::<E>(
                rows,
                waiting,
                head_at + at * stride,
                stride,
                smaller(end - at, tile.tokens),
                vectors,
                loads,
                tile,
            );
        }
    }
}

/// Puts what waits in registers into one of the two rooms of keys or values.
#[cube]
fn receive<E: Float>(
    waiting: &Array<Vector<E, Const<8>>>,
    rooms: &mut Shared<[Vector<E, Const<8>>]>,
    room: usize,
    #[comptime] values: bool,
    #[comptime] tile: TensorTile,
) {
    if comptime!(!values) {
        let at = room * comptime!(tile.key_block());
        place::<E>(
            waiting,
            rooms,
            at,
            tile.key_vectors(),
            tile.key_stride(),
            tile.key_loads(),
            tile,
        );
    } else if comptime!(!tile.in_keys) {
        let at = room * comptime!(tile.value_block());
        place::<E>(
            waiting,
            rooms,
            at,
            tile.value_vectors(),
            tile.value_stride(),
            tile.value_loads(),
            tile,
        );
    }
}

/// Writes the largest score and the sum of weights of each row that there is.
#[cube]
fn write_statistics(
    known: &Array<f32>,
    statistics: &mut [f32],
    first: usize,
    stride: usize,
    present: usize,
    #[comptime] tile: TensorTile,
) {
    let mut total = known[1];
    #[unroll]
    for bit in 0..comptime!(tile.units_of_row().ilog2()) {
        total += plane_shuffle_xor(total, comptime!(1u32 << bit));
    }
    let row = UNIT_POS as usize / comptime!(tile.units_of_row());
    if UNIT_POS as usize % comptime!(tile.units_of_row()) == 0 && row < present {
        let at = first + row * stride;
        statistics[2 * at] = known[0];
        statistics[2 * at + 1] = total;
    }
}
