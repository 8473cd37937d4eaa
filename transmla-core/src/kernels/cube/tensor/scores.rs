//! Scores of a block, and the running softmax (Milakov and Gimelshein, arXiv 1805.02867).

use cubecl::cmma::{MatrixIdent, MmaDefinition};
use cubecl::prelude::*;

use super::super::step::{HIDDEN, SEEN, Step, less, within_bound};
use super::blocks::Part;
use super::tile::{EDGE, PLANE, TensorTile};

/// The queries that a plane multiplies, as a matrix instruction takes them, `[steps, row tiles, 4]`, if it is to keep them.
#[cube]
pub(super) fn keep_queries<E: Float>(
    queries: &Shared<[Vector<E, Const<8>>]>,
    kept: &mut Array<Vector<E, Const<2>>>,
    #[comptime] tile: TensorTile,
) {
    if comptime!(tile.keeps_queries) {
        let slice = UNIT_POS as usize / PLANE % tile.slices;
        #[unroll]
        for step in 0..comptime!(tile.steps()) {
            let depth = slice + step * tile.slices;
            #[unroll]
            for row_tile in 0..tile.row_tiles {
                let fragment = query_fragment::<E>(queries, row_tile, depth, tile);
                #[unroll]
                for register in 0..4usize {
                    kept[comptime!((step * tile.row_tiles + row_tile) * 4 + register)] = fragment[register];
                }
            }
        }
    }
}

/// 16 rows and 16 numbers of the queries.
#[cube]
fn query_fragment<E: Float>(
    queries: &Shared<[Vector<E, Const<8>>]>,
    #[comptime] row_tile: usize,
    step: usize,
    #[comptime] tile: TensorTile,
) -> Array<Vector<E, Const<2>>> {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let lane = UNIT_POS as usize % PLANE;
    let row = row_tile * EDGE + lane % EDGE;
    let at = row * comptime!(tile.key_stride()) + 2 * step + lane / EDGE;
    definition.load_matrix::<_, Const<2>>(&queries[at..at + 1], MatrixIdent::A, 4usize, false)
}

/// Products of all rows and keys of a block, `[slices, rows, tokens]`, to be added up over the slices.
#[cube]
pub(super) fn multiply<E: Float>(
    queries: &Shared<[Vector<E, Const<8>>]>,
    kept: &Array<Vector<E, Const<2>>>,
    key_rooms: &Shared<[Vector<E, Const<8>>]>,
    room: usize,
    products: &mut Shared<[Vector<f32, Const<2>>]>,
    #[comptime] tile: TensorTile,
) {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let plane = UNIT_POS as usize / PLANE;
    let lane = UNIT_POS as usize % PLANE;
    let slice = plane % tile.slices;
    let first_pair = plane / tile.slices * comptime!(tile.pairs());
    let mut sums = Array::<Vector<f32, Const<2>>>::new(comptime!(tile.row_tiles * tile.pairs() * 4));
    #[unroll]
    for index in 0..comptime!(tile.row_tiles * tile.pairs() * 4) {
        sums[index] = Vector::new(0.0f32);
    }
    // The key whose 8 numbers this lane points at.
    let token = first_pair * EDGE + lane / 16 * 8 + lane % 8;
    let key_at = room * comptime!(tile.key_block()) + token * comptime!(tile.key_stride()) + lane / 8 % 2;
    #[unroll]
    for step in 0..comptime!(tile.steps()) {
        let depth = slice + step * tile.slices;
        // The same for all lanes of a plane.
        if comptime!(tile.depth().is_multiple_of(tile.slices)) || depth < comptime!(tile.depth()) {
            let mut rows = Array::<Vector<E, Const<2>>>::new(comptime!(tile.row_tiles * 4));
            #[unroll]
            for row_tile in 0..tile.row_tiles {
                if comptime!(tile.keeps_queries) {
                    #[unroll]
                    for register in 0..4usize {
                        rows[comptime!(row_tile * 4 + register)] =
                            kept[comptime!((step * tile.row_tiles + row_tile) * 4 + register)];
                    }
                } else {
                    let fragment = query_fragment::<E>(queries, row_tile, depth, tile);
                    #[unroll]
                    for register in 0..4usize {
                        rows[comptime!(row_tile * 4 + register)] = fragment[register];
                    }
                }
            }
            #[unroll]
            for pair in 0..comptime!(tile.pairs()) {
                let at = key_at + comptime!(pair * EDGE * tile.key_stride()) + 2 * depth;
                let keys = definition.load_matrix::<_, Const<2>>(&key_rooms[at..at + 1], MatrixIdent::B, 4usize, false);
                #[unroll]
                for row_tile in 0..tile.row_tiles {
                    add_products::<E>(
                        &mut sums,
                        comptime!((row_tile * tile.pairs() + pair) * 4),
                        &rows,
                        comptime!(row_tile * 4),
                        &keys,
                    );
                }
            }
        }
    }
    let stride = comptime!(tile.score_stride() / 2);
    #[unroll]
    for row_tile in 0..tile.row_tiles {
        #[unroll]
        for pair in 0..comptime!(tile.pairs()) {
            #[unroll]
            for half in 0..2usize {
                let row = slice * comptime!(tile.rows()) + comptime!(row_tile * EDGE) + lane / 4;
                let at = row * stride + (first_pair + pair) * 8 + half * 4 + lane % 4;
                let index = comptime!((row_tile * tile.pairs() + pair) * 4 + half * 2);
                products[at] = sums[index];
                products[at + 8 * stride] = sums[comptime!(index + 1)];
            }
        }
    }
}

/// Adds the products of 16 rows and two neighbouring matrices of 8 columns to four vectors of sums.
#[cube]
pub(super) fn add_products<E: Float>(
    sums: &mut Array<Vector<f32, Const<2>>>,
    #[comptime] sums_at: usize,
    rows: &Array<Vector<E, Const<2>>>,
    #[comptime] rows_at: usize,
    columns: &Array<Vector<E, Const<2>>>,
) {
    let definition = MmaDefinition::<E, E, f32>::new(16usize, 8usize, 16usize);
    let mut a = Array::<Vector<E, Const<2>>>::new(4usize);
    #[unroll]
    for register in 0..4usize {
        a[register] = rows[comptime!(rows_at + register)];
    }
    #[unroll]
    for half in 0..2usize {
        let mut b = Array::<Vector<E, Const<2>>>::new(2usize);
        b[0] = columns[comptime!(2 * half)];
        b[1] = columns[comptime!(2 * half + 1)];
        let mut c = Array::<Vector<f32, Const<2>>>::new(2usize);
        c[0] = sums[comptime!(sums_at + 2 * half)];
        c[1] = sums[comptime!(sums_at + 2 * half + 1)];
        let d = definition.execute(&a, &b, &c);
        sums[comptime!(sums_at + 2 * half)] = d[0];
        sums[comptime!(sums_at + 2 * half + 1)] = d[1];
    }
}

/// Weights of a block from its products, and the factor by which what was summed before shrinks. Some units share a row, of which
/// each knows the largest score and a part of the sum of weights.
#[cube]
#[allow(clippy::too_many_arguments, reason = "the rooms of a cube cannot be passed as one")]
pub(super) fn weigh<E: Float>(
    products: &Shared<[Vector<f32, Const<2>>]>,
    weights: &mut Shared<[Vector<E, Const<2>>]>,
    change: &mut Shared<[f32]>,
    known: &mut Array<f32>,
    part: &Part,
    at: usize,
    step: &Step,
    #[comptime] tile: TensorTile,
) {
    let stride = comptime!(tile.score_stride() / 2);
    let row = UNIT_POS as usize / comptime!(tile.units_of_row());
    let place = UNIT_POS as usize % comptime!(tile.units_of_row());
    let row_end = less(part.length + (part.first_row + row) % step.new + 1, step.new);
    let row_start = less(row_end, step.window);
    let row_end = select(part.end < row_end, part.end, row_end);
    let mut scores = Array::<Vector<f32, Const<2>>>::new(comptime!(tile.score_pairs()));
    let mut largest = known[0];
    #[unroll]
    for index in 0..comptime!(tile.score_pairs()) {
        let pair = place + comptime!(index * tile.units_of_row());
        let mut product = products[row * stride + pair];
        #[unroll]
        for slice in 1..tile.slices {
            product += products[(row + comptime!(slice * tile.rows())) * stride + pair];
        }
        let mut score = Vector::<f32, Const<2>>::new(HIDDEN);
        #[unroll]
        for lane in 0..2usize {
            let token = at + 2 * pair + lane;
            let seen = token < row_end && token >= row_start;
            let value = within_bound(product.extract(lane) * step.scale, step.cap, tile.bounded);
            let value = select(seen, value, HIDDEN);
            score.insert(lane, value);
            largest = largest.max(value);
        }
        scores[index] = score;
    }
    #[unroll]
    for bit in 0..comptime!(tile.units_of_row().ilog2()) {
        largest = largest.max(plane_shuffle_xor(largest, comptime!(1u32 << bit)));
    }
    let factor = (known[0] - largest).exp();
    let mut total = known[1] * factor;
    #[unroll]
    for index in 0..comptime!(tile.score_pairs()) {
        let pair = place + comptime!(index * tile.units_of_row());
        let mut weight = Vector::<f32, Const<2>>::new(0.0f32);
        #[unroll]
        for lane in 0..2usize {
            let score = scores[index].extract(lane);
            let value = select(score > SEEN, (score - largest).exp(), 0.0f32);
            weight.insert(lane, value);
            total += value;
        }
        weights[row * stride + pair] = Vector::<E, Const<2>>::cast_from(weight);
    }
    if place == 0 {
        change[row] = factor;
    }
    known[0] = largest;
    known[1] = total;
}

/// The sum of weights of the row whose softmax this unit shares.
#[cube]
pub(super) fn total_of_row(known: &Array<f32>, #[comptime] tile: TensorTile) -> f32 {
    let mut total = known[1];
    #[unroll]
    for bit in 0..comptime!(tile.units_of_row().ilog2()) {
        total += plane_shuffle_xor(total, comptime!(1u32 << bit));
    }
    total
}

/// Writes the largest score and the sum of weights of each row that there is.
#[cube]
pub(super) fn write_statistics(
    largest: f32,
    total: f32,
    statistics: &mut [f32],
    first: usize,
    stride: usize,
    present: usize,
    #[comptime] tile: TensorTile,
) {
    let row = UNIT_POS as usize / comptime!(tile.units_of_row());
    let place = UNIT_POS as usize % comptime!(tile.units_of_row());
    if place == 0 && row < present {
        let at = first + row * stride;
        statistics[2 * at] = largest;
        statistics[2 * at + 1] = total;
    }
}
