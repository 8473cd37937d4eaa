//! The kernel that attends to a part of the cache, in one pass.
//!
//! A cube has some query rows of one key head and a part of its tokens, which it reads in blocks into shared memory. Its
//! units share the work twice, otherwise each time: for scores a unit has one token and several rows, for values a column
//! and all rows, whose sums stay in its registers. In between the rows' largest scores and sums are brought up to date
//! (Milakov and Gimelshein, arXiv 1805.02867). Keys that are values too are read from memory once.

use cubecl::prelude::*;

use super::combine::{combine_keys, combine_values, gather, write_rows};
use super::step::{HIDDEN, SEEN, Step, less, part_of, smaller, within_bound};
use super::tile::Tile;

/// Weighted sums of values, `[batch, G, rows, splits, d_v]`, and each one's largest score and sum of weights, `[.., 2]`.
///
/// Reads q `[batch, G, rows, width]`, keys and values with the strides of the step, and a length for each sequence. One cube for
/// each `(split, rows of a tile, key head of a sequence)`. Values are not read where they are in the keys.
#[cube(launch_unchecked)]
#[allow(clippy::too_many_arguments, reason = "the signature of a kernel is its bindings")]
pub(super) fn attend_part<E: Float, N: Size>(
    q: &[Vector<f32, N>],
    keys: &[Vector<E, N>],
    values: &[Vector<E, N>],
    lengths: &[u32],
    sums: &mut [Vector<f32, N>],
    statistics: &mut [f32],
    step: Step,
    #[comptime] tile: Tile,
    #[define(E)] _dtype: ElemType,
) {
    let unit = UNIT_POS as usize;
    let split = CUBE_POS_X as usize;
    let first_row = CUBE_POS_Y as usize * tile.rows;
    let head = CUBE_POS_Z as usize;
    let length = lengths[head / step.groups] as usize;

    let mut queries = Shared::<[Vector<f32, N>]>::new_slice(comptime!(tile.query_len()));
    let mut block = Shared::<[Vector<E, N>]>::new_slice(comptime!(tile.block_len()));
    let mut products = Shared::<[f32]>::new_slice(comptime!(tile.slices * tile.rows * tile.tokens));
    let mut weights = Shared::<[f32]>::new_slice(comptime!(tile.rows * tile.tokens));
    let mut largest = Shared::<[f32]>::new_slice(comptime!(tile.rows));
    let mut total = Shared::<[f32]>::new_slice(comptime!(tile.rows));
    let mut change = Shared::<[f32]>::new_slice(comptime!(tile.rows));
    let mut own = Array::<Vector<f32, N>>::new(comptime!(tile.rows * tile.column_blocks));
    #[unroll]
    for index in 0..comptime!(tile.rows * tile.column_blocks) {
        own[index] = Vector::new(0.0f32);
    }
    read_queries::<N>(
        q,
        &mut queries,
        head * step.rows + first_row,
        step.rows - first_row,
        tile,
    );
    if unit < tile.rows {
        largest[unit] = HIDDEN.runtime();
        total[unit] = 0.0f32.runtime();
    }

    let (start, end) = part_of(length, split, &step, tile.tokens);
    let keys_at = head / step.groups * step.key_batch + head % step.groups * step.key_group;
    let values_at = head / step.groups * step.value_batch + head % step.groups * step.value_group;
    let mut at = start;
    while at < end {
        let present = smaller(end - at, tile.tokens);
        // Nobody may read the last block any more when it is overwritten.
        sync_cube();
        read_keys::<E, N>(
            keys,
            &mut block,
            keys_at + at * step.key_token,
            step.key_token,
            present,
            tile,
        );
        sync_cube();
        multiply::<E, N>(&queries, &block, &mut products, tile);
        sync_cube();
        score(&products, &mut weights, length, at, first_row, present, &step, tile);
        sync_cube();
        weigh(&mut weights, &mut largest, &mut total, &mut change, tile);
        if comptime!(tile.in_keys) {
            combine_keys::<E, N>(&mut own, &block, &weights, &change, present, tile);
        } else {
            let at = values_at + at * step.value_token;
            combine_values::<E, N>(&mut own, values, at, step.value_token, &weights, &change, present, tile);
        }
        at += tile.tokens;
    }
    gather::<N>(&own, &mut queries, tile);
    write_rows::<N>(
        &queries,
        sums,
        (head * step.rows + first_row) * step.splits + split,
        step.splits,
        step.rows - first_row,
        tile,
    );
    if unit < tile.rows && first_row + unit < step.rows {
        let row = (head * step.rows + first_row + unit) * step.splits + split;
        statistics[2 * row] = largest[unit];
        statistics[2 * row + 1] = total[unit];
    }
}

/// The rows of a tile from `[rows, width]`, zeros behind the last.
#[cube]
fn read_queries<N: Size>(
    q: &[Vector<f32, N>],
    queries: &mut Shared<[Vector<f32, N>]>,
    first: usize,
    present: usize,
    #[comptime] tile: Tile,
) {
    let mut index = UNIT_POS as usize;
    while index < comptime!(tile.rows * tile.width) {
        let mut query = Vector::new(0.0f32);
        if index / tile.width < present {
            query = q[first * tile.width + index];
        }
        queries[index] = query;
        index += tile.units;
    }
}

/// The keys of a block, side by side as they lie.
#[cube]
fn read_keys<E: Float, N: Size>(
    keys: &[Vector<E, N>],
    block: &mut Shared<[Vector<E, N>]>,
    at: usize,
    stride: usize,
    present: usize,
    #[comptime] tile: Tile,
) {
    let mut index = UNIT_POS as usize;
    while index < present * tile.width {
        let token = index / tile.width;
        let part = index % tile.width;
        block[token * comptime!(tile.key_stride()) + part] = keys[at + token * stride + part];
        index += tile.units;
    }
}

/// Products of all rows and keys of a block, `[slices, rows, tokens]`: to be added up over the slices.
#[cube]
fn multiply<E: Float, N: Size>(
    queries: &Shared<[Vector<f32, N>]>,
    block: &Shared<[Vector<E, N>]>,
    products: &mut Shared<[f32]>,
    #[comptime] tile: Tile,
) {
    let row_blocks = comptime!(tile.rows / tile.row_block);
    let mut task = UNIT_POS as usize;
    while task < comptime!(tile.slices * tile.rows / tile.row_block * tile.tokens) {
        let token = task % tile.tokens;
        let row = task / tile.tokens % row_blocks * tile.row_block;
        let slice = task / comptime!(tile.tokens * row_blocks);
        let mut dots = Array::<Vector<f32, N>>::new(tile.row_block);
        #[unroll]
        for r in 0..tile.row_block {
            dots[r] = Vector::new(0.0f32);
        }
        let mut part = slice;
        while part < tile.width {
            let key = Vector::<f32, N>::cast_from(block[token * comptime!(tile.key_stride()) + part]);
            #[unroll]
            for r in 0..tile.row_block {
                dots[r] += queries[(row + r) * tile.width + part] * key;
            }
            part += tile.slices;
        }
        #[unroll]
        for r in 0..tile.row_block {
            let mut dot = dots[r].extract(0usize);
            #[unroll]
            for lane in 1..N::value() {
                dot += dots[r].extract(lane);
            }
            products[(slice * tile.rows + row + r) * tile.tokens + token] = dot;
        }
        task += tile.units;
    }
}

/// Scores of all rows and tokens of a block from the products of its slices; those that a row does not see are [`HIDDEN`].
#[cube]
#[allow(
    clippy::too_many_arguments,
    reason = "where the block lies, beside what is read and written"
)]
fn score(
    products: &Shared<[f32]>,
    weights: &mut Shared<[f32]>,
    length: usize,
    at: usize,
    first_row: usize,
    present: usize,
    step: &Step,
    #[comptime] tile: Tile,
) {
    let mut pair = UNIT_POS as usize;
    while pair < comptime!(tile.rows * tile.tokens) {
        let mut product = products[pair];
        for slice in 1..tile.slices {
            product += products[slice * comptime!(tile.rows * tile.tokens) + pair];
        }
        let token = pair % tile.tokens;
        let row = first_row + pair / tile.tokens;
        let row_end = less(length + row % step.new + 1, step.new);
        let seen = token < present && at + token < row_end && at + token >= less(row_end, step.window);
        weights[pair] = select(seen, within_bound(product * step.scale, step.cap, tile.bounded), HIDDEN);
        pair += tile.units;
    }
}

/// Weights from scores by each row's largest score so far, which with the sums of weights is brought up to date; `change` is by
/// how much sums of earlier blocks shrink.
#[cube]
fn weigh(
    weights: &mut Shared<[f32]>,
    largest: &mut Shared<[f32]>,
    total: &mut Shared<[f32]>,
    change: &mut Shared<[f32]>,
    #[comptime] tile: Tile,
) {
    let unit = UNIT_POS as usize;
    if unit < tile.rows {
        let mut highest = largest[unit];
        for token in 0..tile.tokens {
            highest = highest.max(weights[unit * tile.tokens + token]);
        }
        change[unit] = (largest[unit] - highest).exp();
        largest[unit] = highest;
    }
    sync_cube();
    let mut pair = unit;
    while pair < comptime!(tile.rows * tile.tokens) {
        let score = weights[pair];
        weights[pair] = select(score > SEEN, (score - largest[pair / tile.tokens]).exp(), 0.0f32);
        pair += tile.units;
    }
    sync_cube();
    if unit < tile.rows {
        let mut sum = total[unit] * change[unit];
        for token in 0..tile.tokens {
            sum += weights[unit * tile.tokens + token];
        }
        total[unit] = sum;
    }
}
