//! The kernel: a cube has some query rows of one key head and a part of its tokens.
//!
//! The planes share the products of queries and keys by tokens and by the numbers of a key, the softmax by rows, and the weighted sums
//! by columns. Between two barriers lie either the weighted sums of one block and the products of the next, which do not need
//! each other, or the softmax of the next and the arrival of the one behind it, which has been under way all the time.

use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::super::step::{HIDDEN, Step, part_of};
use super::blocks::{ask, part_of_cube, read_queries, receive};
use super::scores::{keep_queries, multiply, total_of_row, weigh, write_statistics};
use super::tile::TensorTile;
use super::values::{combine, divide, write_rows};

/// Weighted sums of values and their statistics, as the kernel of vectors gives them (`attend_part`), which says what the operands are.
/// Strides count vectors of 8. Where a sequence is `whole`, in one part, `sums` become the result and `statistics` are not written.
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
    #[comptime] whole: bool,
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
    let mut new_keys = Array::<Vector<E, Const<8>>>::new(comptime!(tile.key_loads()));
    let mut new_values = Array::<Vector<E, Const<8>>>::new(comptime!(tile.value_loads()));
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
    let part = part_of_cube(&step, head, first_row, length, end);
    ask::<E>(keys, values, &mut new_keys, &mut new_values, &part, start, tile);
    let first = head * step.rows + first_row;
    let present = step.rows - first_row;
    read_queries::<E>(q, &mut queries, first, present, tile);
    if start < end {
        // The block whose scores come next, and the room of the one whose weights are there.
        let mut next = start + tile.tokens;
        let mut room = 0usize.runtime();
        receive::<E>(&new_keys, &new_values, &mut key_rooms, &mut value_rooms, room, tile);
        ask::<E>(keys, values, &mut new_keys, &mut new_values, &part, next, tile);
        sync_cube();
        keep_queries::<E>(&queries, &mut kept, tile);
        multiply::<E>(&queries, &kept, &key_rooms, room, &mut products, tile);
        sync_cube();
        weigh::<E>(
            &products,
            &mut weights,
            &mut change,
            &mut row,
            &part,
            start,
            &step,
            tile,
        );
        while next < end {
            let other = 1 - room;
            receive::<E>(&new_keys, &new_values, &mut key_rooms, &mut value_rooms, other, tile);
            let behind = next + tile.tokens;
            ask::<E>(keys, values, &mut new_keys, &mut new_values, &part, behind, tile);
            sync_cube();
            combine::<E>(&mut own, &key_rooms, &value_rooms, room, &weights, &change, tile);
            multiply::<E>(&queries, &kept, &key_rooms, other, &mut products, tile);
            sync_cube();
            weigh::<E>(&products, &mut weights, &mut change, &mut row, &part, next, &step, tile);
            next = behind;
            room = other;
        }
        sync_cube();
        combine::<E>(&mut own, &key_rooms, &value_rooms, room, &weights, &change, tile);
    }
    let total = total_of_row(&row, tile);
    let at = first * step.splits + split;
    if comptime!(whole) {
        divide(&mut own, &mut change, total, tile);
    } else {
        write_statistics(row[0], total, statistics, at, step.splits, present, tile);
    }
    write_rows(&own, sums, at, step.splits, present, tile);
}
