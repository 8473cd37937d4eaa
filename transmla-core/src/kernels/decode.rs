//! Attention of a few new tokens to many cached ones, on the CPU.
//!
//! One pass over the cache, in blocks of tokens: scores, a running softmax (Milakov and Gimelshein, arXiv 1805.02867) and the
//! weighted sum of values, before the next block is read. Where values are a part of the keys, as in a latent cache, a
//! block is read from memory once for both. A cache of few heads is split among threads by tokens, and what the parts
//! found is joined by their largest scores and sums (as Flash-Decoding does).

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;
use transmla_checkpoint::config::AttentionParameters;

use super::exponential::{cap, exponentiate_below, largest, scale};
use super::prefetch::Prefetch;
use super::storage::StoredSlice;
use super::threads::SERIAL;
use super::vectors::{Rows, combine, dots};

/// Fewest cached tokens of a block; of narrow keys it has more, so that the blocks of a head stay long streams.
const BLOCK: usize = 64;

/// Numbers in the keys of a block, if that many make more than the fewest tokens: 128 KiB of the second cache.
const BLOCK_NUMBERS: usize = 1 << 15;

/// Least number of tokens that is worth a part of its own.
const PART: usize = 4 * BLOCK;

/// Keys and values of one key head of one sequence.
#[derive(Debug, Clone, Copy)]
pub struct CachedHead<'a> {
    /// `[tokens, width + scales]`.
    pub keys: StoredSlice<'a>,
    /// `[tokens, d_v]`; if there are none, a value is the first d_v numbers of its key.
    pub values: Option<StoredSlice<'a>>,
}

/// Shapes of one step.
#[derive(Debug, Clone, Copy)]
pub struct DecodeShape {
    /// Query heads that share a key head.
    pub shared: usize,
    /// New tokens, the last ones of the cache.
    pub new: usize,
    /// Of a query and of a key.
    pub width: usize,
    /// d_v.
    pub value_width: usize,
    /// Numbers behind each key that its scores are multiplied by: one for each of as many equal shares of the query heads that
    /// share it. Mostly none.
    pub scales: usize,
}

impl DecodeShape {
    /// Rows of queries that a key head meets.
    fn rows(&self) -> usize {
        self.shared * self.new
    }

    /// From one cached key to the next.
    fn stride(&self) -> usize {
        self.width + self.scales
    }

    /// Cached tokens of a block.
    fn block(&self) -> usize {
        BLOCK.max((BLOCK_NUMBERS / self.stride().max(1)).min(8 * BLOCK) / BLOCK * BLOCK)
    }
}

/// What a part of the cached tokens adds to the result.
struct Part {
    /// Largest score of each row so far.
    largest: Vec<f32>,
    /// Sum of the exponentials of each row's scores below it.
    sums: Vec<f32>,
    /// The same sum of values, `[rows, d_v]`.
    values: Vec<f32>,
}

#[derive(Default)]
struct Scratch {
    scores: Vec<f32>,
    keys: Vec<f32>,
    values: Vec<f32>,
}

/// `softmax(scores(q kᵀ)) v` for each cached head.
///
/// `q` is `[heads, shared, new, width]`, where heads are those of all sequences, one after the other; so is the result,
/// with `value_width` in the place of `width`.
///
/// # Panics
/// If `q` has another size, a head holds fewer tokens than are new, or values of another number of tokens; if the scales do not divide
/// the heads that share a key.
pub fn decode(shape: &DecodeShape, parameters: &AttentionParameters, q: &[f32], heads: &[CachedHead<'_>]) -> Vec<f32> {
    let arch = Arch::new();
    let tokens = |head: &CachedHead<'_>| head.keys.len() / shape.stride();
    assert!(shape.scales == 0 || shape.shared.is_multiple_of(shape.scales));
    assert_eq!(q.len(), heads.len() * shape.rows() * shape.width);
    for head in heads {
        let values = head.values.map(|values| values.len() / shape.value_width);
        assert!(tokens(head) >= shape.new && values.is_none_or(|values| values == tokens(head)));
        assert!(head.values.is_some() || shape.value_width <= shape.width);
    }
    // Two parts to a thread even out what the threads are held up by.
    let wanted = (2 * rayon::current_num_threads()).div_ceil(heads.len().max(1));
    let mut tasks = Vec::new();
    for (index, head) in heads.iter().enumerate() {
        let end = tokens(head);
        let start = parameters
            .window
            .map_or(0, |window| (end - shape.new + 1).saturating_sub(window));
        let parts = ((end - start) / PART).clamp(1, wanted);
        let size = (end - start).div_ceil(parts).next_multiple_of(BLOCK);
        tasks.extend(
            (start..end)
                .step_by(size)
                .map(|from| (index, from..end.min(from + size))),
        );
    }
    let run = |scratch: &mut Scratch, (index, range): (usize, Range<usize>)| {
        let queries = &q[index * shape.rows() * shape.width..][..shape.rows() * shape.width];
        let mut part = Part::new(shape);
        for start in range.clone().step_by(shape.block()) {
            let end = range.end.min(start + shape.block());
            let next = end..range.end.min(end + shape.block());
            part.add(
                arch,
                shape,
                parameters,
                queries,
                &heads[index],
                [start..end, next],
                scratch,
            );
        }
        (index, part)
    };
    let cached: usize = tasks.iter().map(|(_, range)| range.len()).sum();
    let parts: Vec<(usize, Part)> = match cached * shape.rows() * (shape.width + shape.value_width) < SERIAL {
        true => {
            let mut scratch = Scratch::default();
            tasks.into_iter().map(|task| run(&mut scratch, task)).collect()
        }
        false => tasks.into_par_iter().map_init(Scratch::default, run).collect(),
    };
    let mut output = vec![0.0; heads.len() * shape.rows() * shape.value_width];
    let mut targets = output.chunks_exact_mut(shape.rows() * shape.value_width);
    for parts in parts.chunk_by(|a, b| a.0 == b.0) {
        if let Some(target) = targets.next() {
            join(arch, shape, parts, target);
        }
    }
    output
}

impl Part {
    fn new(shape: &DecodeShape) -> Self {
        Self {
            largest: vec![f32::NEG_INFINITY; shape.rows()],
            sums: vec![0.0; shape.rows()],
            values: vec![0.0; shape.rows() * shape.value_width],
        }
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one block of one head, and nothing of it twice"
    )]
    fn add(
        &mut self,
        arch: Arch,
        shape: &DecodeShape,
        parameters: &AttentionParameters,
        q: &[f32],
        head: &CachedHead<'_>,
        [block, next]: [Range<usize>; 2],
        scratch: &mut Scratch,
    ) {
        let (width, value_width, rows, count) = (shape.width, shape.value_width, shape.rows(), block.len());
        let step = shape.stride();
        let keys = head.keys.widen(block.start * step, count * step, &mut scratch.keys);
        let keys_of = Rows::new(keys, count, width, step);
        let values = match head.values {
            None => Rows::new(keys, count, value_width, step),
            Some(values) => {
                let start = block.start * value_width;
                let values = values.widen(start, count * value_width, &mut scratch.values);
                Rows::new(values, count, value_width, value_width)
            }
        };
        let stride = shape.block();
        let scores = &mut scratch.scores;
        scores.resize(rows * stride, 0.0);
        let queries = Rows::new(q, rows, width, width);
        dots(arch, scores, stride, parameters.scale as f32, queries, keys_of);
        let tokens = head.keys.len() / step;
        for (row, scores) in scores.chunks_exact_mut(stride).enumerate() {
            let scores = &mut scores[..count];
            // Query heads that have a scale in common, if there are any scales.
            if let Some(heads) = shape.shared.checked_div(shape.scales) {
                let share = row / shape.new / heads;
                for (score, key) in scores.iter_mut().zip(keys.chunks_exact(step)) {
                    *score *= key[width + share];
                }
            }
            if let Some(bound) = parameters.softcap {
                cap(arch, scores, bound as f32);
            }
            // The row's token sees itself and those before it, in a window if there is one.
            let last = tokens - shape.new + row % shape.new;
            let first = parameters.window.map_or(0, |window| (last + 1).saturating_sub(window));
            let within = |token: usize| token.saturating_sub(block.start).min(count);
            let (first, end) = (within(first), within(last + 1));
            if first >= end {
                scores.fill(0.0);
                continue;
            }
            scores[..first].fill(0.0);
            scores[end..].fill(0.0);
            self.weigh(arch, row, value_width, &mut scores[first..end]);
        }
        let weights = Rows::new(scores, rows, count, stride);
        // Values that are keys are in the processor's caches by now, so that memory is free for the next keys.
        let prefetch = match head.values {
            None => Prefetch::of(head.keys, next.start * step, next.len() * step),
            Some(_) => Prefetch::none(),
        };
        combine(arch, &mut self.values, value_width, weights, values, prefetch);
    }

    /// From scores of one row to their weights, with what was summed before brought to the same largest score.
    fn weigh(&mut self, arch: Arch, row: usize, value_width: usize, scores: &mut [f32]) {
        let highest = largest(arch, scores).max(self.largest[row]);
        if highest > self.largest[row] {
            let factor = (self.largest[row] - highest).exp();
            self.largest[row] = highest;
            self.sums[row] *= factor;
            scale(arch, &mut self.values[row * value_width..][..value_width], factor);
        }
        self.sums[row] += exponentiate_below(arch, scores, highest);
    }
}

/// The parts of one head together, `[rows, d_v]`.
fn join(arch: Arch, shape: &DecodeShape, parts: &[(usize, Part)], target: &mut [f32]) {
    let width = shape.value_width;
    for (row, target) in target.chunks_exact_mut(width).enumerate() {
        let highest = parts
            .iter()
            .fold(f32::NEG_INFINITY, |highest, (_, part)| highest.max(part.largest[row]));
        let mut sum = 0.0;
        for (_, part) in parts.iter().filter(|(_, part)| part.sums[row] > 0.0) {
            let factor = (part.largest[row] - highest).exp();
            sum += factor * part.sums[row];
            for (target, value) in target.iter_mut().zip(&part.values[row * width..][..width]) {
                *target += factor * value;
            }
        }
        scale(arch, target, sum.recip());
    }
}
