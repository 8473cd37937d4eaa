//! Attention and its gradient on the CPU, in blocks of query rows.
//!
//! A block's scores against all keys that it may see are one small product; they stay in the cache through softmax and the
//! product with the values. Keys in the future of a whole block are never touched, which halves the work.

use pulp::Arch;
use rayon::prelude::*;
use transmla_checkpoint::config::AttentionParameters;

use super::exponential::{cap, exponentiate, scale, slope_of_cap, softmax_gradient};
use super::product::{View, multiply};

/// Query rows of a block.
const BLOCK: usize = 64;

/// Shapes of one attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Problem {
    batch: usize,
    heads: usize,
    groups: usize,
    new: usize,
    tokens: usize,
    width: usize,
    value_width: usize,
    scale: f32,
    softcap: Option<f32>,
    /// Keys that a query sees.
    window: usize,
}

/// Queries, keys and values, contiguous.
pub(super) struct Inputs<'a> {
    pub q: &'a [f32],
    pub k: &'a [f32],
    pub v: &'a [f32],
}

/// Rows of one block and the keys that any of them sees.
struct Block {
    start: usize,
    rows: usize,
    first_key: usize,
    keys: usize,
}

impl Problem {
    /// The shapes of q, k and v, if they belong together.
    pub fn new(q: [usize; 4], k: [usize; 4], v: [usize; 4], parameters: &AttentionParameters) -> Option<Self> {
        let [batch, heads, new, width] = q;
        let [_, groups, tokens, value_width] = v;
        let fits = k == [batch, groups, tokens, width]
            && v[0] == batch
            && groups > 0
            && heads.is_multiple_of(groups)
            && new <= tokens
            && new * width * value_width > 0;
        fits.then_some(Self {
            batch,
            heads,
            groups,
            new,
            tokens,
            width,
            value_width,
            scale: parameters.scale as f32,
            softcap: parameters.softcap.map(|cap| cap as f32),
            window: parameters.window.unwrap_or(tokens).clamp(1, tokens),
        })
    }

    /// `[batch, H, new, d_v]`.
    pub fn output_dims(&self) -> [usize; 4] {
        [self.batch, self.heads, self.new, self.value_width]
    }

    /// Numbers in the output.
    pub fn output_len(&self) -> usize {
        self.output_dims().iter().product()
    }

    fn blocks(&self) -> impl Iterator<Item = Block> {
        let past = self.tokens - self.new;
        (0..self.new).step_by(BLOCK).map(move |start| {
            let rows = BLOCK.min(self.new - start);
            let first_key = (past + start + 1).saturating_sub(self.window);
            Block {
                start,
                rows,
                first_key,
                keys: past + start + rows - first_key,
            }
        })
    }

    /// Scores of a block with scale and bound, rows `keys` long.
    fn scores(&self, arch: Arch, block: &Block, q: &[f32], k: &[f32], scores: &mut [f32]) {
        let queries = View::new(&q[block.start * self.width..], block.rows, self.width, self.width);
        multiply(scores, block.keys, false, self.scale, queries, self.keys(block, k).t());
        if let Some(bound) = self.softcap {
            cap(arch, &mut scores[..block.rows * block.keys], bound);
        }
    }

    /// Normalised probabilities of a block, rows `keys` long, into `scores`.
    fn probabilities(&self, arch: Arch, block: &Block, q: &[f32], k: &[f32], scores: &mut [f32]) {
        self.scores(arch, block, q, k, scores);
        let first = block.keys - block.rows;
        for (row, scores) in scores.chunks_exact_mut(block.keys).take(block.rows).enumerate() {
            let (past, future) = scores.split_at_mut(first + row + 1);
            let (forgotten, seen) = past.split_at_mut((first + row + 1).saturating_sub(self.window));
            let sum = exponentiate(arch, seen);
            scale(arch, seen, sum.recip());
            forgotten.fill(0.0);
            future.fill(0.0);
        }
    }

    /// The keys of a block.
    fn keys<'a>(&self, block: &Block, k: &'a [f32]) -> View<'a> {
        View::new(&k[block.first_key * self.width..], block.keys, self.width, self.width)
    }

    /// The values of a block.
    fn values<'a>(&self, block: &Block, v: &'a [f32]) -> View<'a> {
        let width = self.value_width;
        View::new(&v[block.first_key * width..], block.keys, width, width)
    }

    fn part<'a>(&self, values: &'a [f32], index: usize, rows: usize, width: usize) -> &'a [f32] {
        &values[index * rows * width..(index + 1) * rows * width]
    }
}

/// `output[b, h] = softmax(scores(q kᵀ)) v`.
pub(super) fn forward(problem: &Problem, q: &[f32], k: &[f32], v: &[f32], output: &mut [f32]) {
    let arch = Arch::new();
    let shared = problem.heads / problem.groups;
    let scratch = || vec![0.0; BLOCK.min(problem.new) * problem.tokens];
    let per_head = problem.new * problem.value_width;
    output
        .par_chunks_exact_mut(per_head)
        .enumerate()
        .for_each_init(scratch, |scores, (head, output)| {
            let q = problem.part(q, head, problem.new, problem.width);
            let k = problem.part(k, head / shared, problem.tokens, problem.width);
            let v = problem.part(v, head / shared, problem.tokens, problem.value_width);
            for block in problem.blocks() {
                problem.probabilities(arch, &block, q, k, scores);
                let p = View::new(scores, block.rows, block.keys, block.keys);
                let target = &mut output[block.start * problem.value_width..];
                multiply(target, problem.value_width, false, 1.0, p, problem.values(&block, v));
            }
        });
}

/// Gradients `[dq, dk, dv]`, zero beforehand, from those at the output.
pub(super) fn backward(problem: &Problem, inputs: &Inputs<'_>, output: &[f32], gradients: [&mut [f32]; 3]) {
    let arch = Arch::new();
    let shared = problem.heads / problem.groups;
    let [dq, dk, dv] = gradients;
    let scratch = || {
        let scores = vec![0.0; BLOCK.min(problem.new) * problem.tokens];
        let slopes = if problem.softcap.is_some() {
            scores.clone()
        } else {
            Vec::new()
        };
        (scores.clone(), scores, slopes)
    };
    // The query heads of a key head add up in its gradients, so a key head is the unit of work.
    dq.par_chunks_exact_mut(shared * problem.new * problem.width)
        .zip(dk.par_chunks_exact_mut(problem.tokens * problem.width))
        .zip(dv.par_chunks_exact_mut(problem.tokens * problem.value_width))
        .enumerate()
        .for_each_init(scratch, |(p, ds, slopes), (group, ((dq, dk), dv))| {
            let k = problem.part(inputs.k, group, problem.tokens, problem.width);
            let v = problem.part(inputs.v, group, problem.tokens, problem.value_width);
            for (index, dq) in dq.chunks_exact_mut(problem.new * problem.width).enumerate() {
                let head = group * shared + index;
                let q = problem.part(inputs.q, head, problem.new, problem.width);
                let output = problem.part(output, head, problem.new, problem.value_width);
                for block in problem.blocks() {
                    problem.probabilities(arch, &block, q, k, p);
                    problem.pull_back(arch, &block, [q, k, v, output], [p, ds, slopes], [dq, dk, dv]);
                }
            }
        });
}

impl Problem {
    fn pull_back(
        &self,
        arch: Arch,
        block: &Block,
        [q, k, v, output]: [&[f32]; 4],
        [p, ds, slopes]: [&mut Vec<f32>; 3],
        [dq, dk, dv]: [&mut [f32]; 3],
    ) {
        let (width, value_width, keys) = (self.width, self.value_width, block.keys);
        let outputs = View::new(
            &output[block.start * value_width..],
            block.rows,
            value_width,
            value_width,
        );
        multiply(ds, keys, false, 1.0, outputs, self.values(block, v).t());
        let rows = p.chunks_exact(keys).zip(ds.chunks_exact_mut(keys)).take(block.rows);
        rows.for_each(|(p, dp)| softmax_gradient(arch, p, dp));
        if let Some(bound) = self.softcap {
            self.scores(arch, block, q, k, slopes);
            let count = block.rows * keys;
            slope_of_cap(arch, &slopes[..count], bound, &mut ds[..count]);
        }
        let p = View::new(p, block.rows, keys, keys);
        let ds = View::new(ds, block.rows, keys, keys);
        let queries = View::new(&q[block.start * width..], block.rows, width, width);
        multiply(
            &mut dq[block.start * width..],
            width,
            false,
            self.scale,
            ds,
            self.keys(block, k),
        );
        let dk = &mut dk[block.first_key * width..];
        multiply(dk, width, true, self.scale, ds.t(), queries);
        let dv = &mut dv[block.first_key * value_width..];
        multiply(dv, value_width, true, 1.0, p.t(), outputs);
    }
}
