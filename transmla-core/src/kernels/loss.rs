//! The loss of a row of logits against those of another model and against a token, with its gradient in the row's place.

use pulp::Arch;

use super::exponential::{cap, exponentiate_below, largest, slope_of_cap};

/// Numbers that are added in single precision before their sum is added in double precision.
const CHUNK: usize = 256;

/// Least probability that is divided by.
const LEAST: f64 = 1e-12;

/// What a row is held against.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RowTeacher<'a> {
    /// Nothing but the token.
    None,
    /// All logits of the other model.
    Logits(&'a [f32]),
    /// The logarithms of its largest probabilities, and their tokens; the rest counts as one token more.
    Top { ids: &'a [f32], logs: &'a [f32] },
}

/// What a row is worth, and the loss of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct RowLoss {
    /// Kullback-Leibler divergence of the row from the teacher, in nats.
    pub kl: f64,
    /// Minus the logarithm of the token's probability; 0 where there is no token.
    pub cross_entropy: f64,
}

/// The loss of a row of logits, which becomes the gradient of `weights[0] · kl + weights[1] · cross_entropy`.
///
/// `bound` is the soft-cap that the logits have not gone through yet. `scratch` is two rows of any contents.
pub(crate) fn row_loss(
    row: &mut [f32],
    teacher: RowTeacher<'_>,
    token: Option<usize>,
    weights: [f64; 2],
    bound: Option<f32>,
    scratch: &mut [Vec<f32>; 2],
) -> RowLoss {
    let arch = Arch::new();
    let [other, capped] = scratch;
    if let Some(bound) = bound {
        cap(arch, row, bound);
        capped.clear();
        capped.extend_from_slice(row);
    }
    let [of_kl, of_token] = weights;
    let token = token.filter(|token| *token < row.len());
    let top = largest(arch, row);
    let token_logit = token.map(|token| f64::from(row[token]));
    let mut loss = RowLoss::default();
    // What all gradients are made of: probabilities times this.
    let mut share = if token.is_some() { of_token } else { 0.0 };
    match teacher {
        RowTeacher::None => {
            let sum = f64::from(exponentiate_below(arch, row, top));
            finish(arch, row, share / sum);
            loss.cross_entropy = token_logit.map_or(0.0, |logit| f64::from(top) + sum.ln() - logit);
        }
        RowTeacher::Logits(logits) => {
            other.clear();
            other.extend_from_slice(logits);
            let other_top = largest(arch, other);
            let other_sum = f64::from(exponentiate_below(arch, other, other_top));
            let difference = weighted_difference(arch, other, logits, row) / other_sum;
            let sum = f64::from(exponentiate_below(arch, row, top));
            let log_sum = f64::from(top) + sum.ln();
            loss.kl = difference - (f64::from(other_top) + other_sum.ln()) + log_sum;
            loss.cross_entropy = token_logit.map_or(0.0, |logit| log_sum - logit);
            share += of_kl;
            let (own, taken) = ((share / sum) as f32, (of_kl / other_sum) as f32);
            arch.dispatch(
                #[inline(always)]
                || {
                    for (value, other) in row.iter_mut().zip(other.iter()) {
                        *value = *value * own - *other * taken;
                    }
                },
            );
        }
        RowTeacher::Top { ids, logs } => {
            let sum = f64::from(exponentiate_below(arch, row, top));
            let listed = || ids.iter().zip(logs).map(|(id, log)| (*id as usize, f64::from(*log)));
            let (mut rest, mut own_rest) = (1.0, 1.0);
            for (id, log) in listed() {
                let own = f64::from(row[id]) / sum;
                loss.kl += log.exp() * (log - own.max(LEAST).ln());
                rest -= log.exp();
                own_rest -= own;
            }
            // What is left after subtraction has few digits where it is small.
            let (rest, own_rest) = (rest.max(0.0), own_rest.max(LEAST));
            if rest > 0.0 {
                loss.kl += rest * (rest / own_rest).ln();
            }
            loss.cross_entropy = token_logit.map_or(0.0, |logit| f64::from(top) + sum.ln() - logit);
            let of_listed: Vec<(usize, f64)> = listed()
                .map(|(id, log)| (id, f64::from(row[id]) / sum * (share + of_kl) - of_kl * log.exp()))
                .collect();
            finish(arch, row, (share + of_kl * (1.0 - rest / own_rest)) / sum);
            for (id, gradient) in of_listed {
                row[id] = gradient as f32;
            }
        }
    }
    if let Some(token) = token {
        row[token] -= of_token as f32;
    }
    if let Some(bound) = bound {
        slope_of_cap(arch, capped, bound, row);
    }
    loss
}

fn finish(arch: Arch, row: &mut [f32], factor: f64) {
    super::exponential::scale(arch, row, factor as f32);
}

/// `Σ weights · (a - b)`.
fn weighted_difference(arch: Arch, weights: &[f32], a: &[f32], b: &[f32]) -> f64 {
    let chunks = weights.chunks(CHUNK).zip(a.chunks(CHUNK)).zip(b.chunks(CHUNK));
    chunks
        .map(|((weights, a), b)| {
            let sum = arch.dispatch(
                #[inline(always)]
                || {
                    let mut sums = [0.0f32; 16];
                    let numbers = weights.iter().zip(a).zip(b);
                    for (index, ((weight, a), b)) in numbers.enumerate() {
                        sums[index % 16] += weight * (a - b);
                    }
                    sums.iter().sum::<f32>()
                },
            );
            f64::from(sum)
        })
        .sum()
}

/// The tokens of the largest of a row of logits and the logarithms of their probabilities, the largest first and of equal ones
/// the first, `count` of each. The row is used up.
pub(crate) fn top_of_row(row: &mut [f32], count: usize, bound: Option<f32>) -> (Vec<f32>, Vec<f32>) {
    let arch = Arch::new();
    if let Some(bound) = bound {
        cap(arch, row, bound);
    }
    let mut order: Vec<u32> = (0..row.len() as u32).collect();
    let count = count.min(row.len());
    let larger = |a: &u32, b: &u32| row[*b as usize].total_cmp(&row[*a as usize]).then(a.cmp(b));
    if count < order.len() {
        order.select_nth_unstable_by(count, larger);
        order.truncate(count);
    }
    order.sort_unstable_by(larger);
    let logits: Vec<f32> = order.iter().map(|id| row[*id as usize]).collect();
    let top = largest(arch, row);
    let sum = f64::from(exponentiate_below(arch, row, top));
    let log_sum = f64::from(top) + sum.ln();
    let logs = logits.iter().map(|logit| (f64::from(*logit) - log_sum) as f32);
    (order.iter().map(|id| *id as f32).collect(), logs.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const WIDTH: usize = 300;

    fn numbers(seed: u64) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5) * 8.0
        };
        (0..WIDTH).map(|_| next()).collect()
    }

    fn capped(row: &[f64], bound: Option<f64>) -> Vec<f64> {
        let cap = |logit: &f64| bound.map_or(*logit, |bound| bound * (logit / bound).tanh());
        row.iter().map(cap).collect()
    }

    fn log_probabilities(row: &[f64]) -> Vec<f64> {
        let sum: f64 = row.iter().map(|logit| logit.exp()).sum();
        row.iter().map(|logit| logit - sum.ln()).collect()
    }

    /// In f64, by the definitions.
    fn expected(row: &[f64], teacher: &[f64], bound: Option<f64>, top: Option<usize>, token: Option<usize>) -> RowLoss {
        let (p, q) = (
            log_probabilities(&capped(teacher, bound)),
            log_probabilities(&capped(row, bound)),
        );
        let mut order: Vec<usize> = (0..row.len()).collect();
        order.sort_by(|a, b| p[*b].total_cmp(&p[*a]));
        let listed = &order[..top.unwrap_or(row.len())];
        let mut kl: f64 = listed.iter().map(|id| p[*id].exp() * (p[*id] - q[*id])).sum();
        if top.is_some() {
            let rest = |logs: &[f64]| 1.0 - listed.iter().map(|id| logs[*id].exp()).sum::<f64>();
            kl += rest(&p) * (rest(&p) / rest(&q)).ln();
        }
        RowLoss {
            kl,
            cross_entropy: token.map_or(0.0, |token| -q[token]),
        }
    }

    /// Loss and gradient, against the definitions and their finite differences.
    #[test]
    fn gradients_are_those_of_the_definitions() {
        let weights = [0.7, 0.3];
        for (bound, top, token) in [
            (None, None, Some(4)),
            (Some(5.0f32), None, Some(17)),
            (None, Some(12), None),
            (Some(3.0), Some(40), Some(299)),
            (None, None, None),
        ] {
            let (student, teacher) = (numbers(1), numbers(2));
            let mut scratch = [Vec::new(), Vec::new()];
            let (mut row, mut other) = (student.clone(), teacher.clone());
            if let Some(bound) = bound {
                cap(Arch::new(), &mut other, bound);
            }
            let (ids, logs) = top_of_row(&mut teacher.clone(), top.unwrap_or(0), bound);
            let against = match top {
                None => RowTeacher::Logits(&other),
                Some(_) => RowTeacher::Top { ids: &ids, logs: &logs },
            };
            let found = row_loss(&mut row, against, token, weights, bound, &mut scratch);
            let wide = |row: &[f32]| row.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            let at = |row: &[f64]| expected(row, &wide(&teacher), bound.map(f64::from), top, token);
            let loss = |row: &[f64]| weights[0] * at(row).kl + weights[1] * at(row).cross_entropy;
            let exact = at(&wide(&student));
            assert!((found.kl - exact.kl).abs() < 1e-5, "{found:?} {exact:?}");
            assert!(
                (found.cross_entropy - exact.cross_entropy).abs() < 1e-5,
                "{found:?} {exact:?}"
            );
            for index in 0..WIDTH {
                let moved = |by: f64| {
                    let mut row = wide(&student);
                    row[index] += by;
                    loss(&row)
                };
                let slope = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                assert!(
                    (f64::from(row[index]) - slope).abs() < 2e-6,
                    "{index}: {} {slope}",
                    row[index]
                );
            }
        }
    }

    #[test]
    fn a_row_like_its_teacher_has_no_divergence() {
        let teacher = numbers(3);
        let mut row = teacher.clone();
        let against = RowTeacher::Logits(&teacher);
        let loss = row_loss(&mut row, against, None, [1.0, 1.0], None, &mut [Vec::new(), Vec::new()]);
        assert!(loss.kl.abs() < 1e-6 && loss.cross_entropy == 0.0);
        assert!(row.iter().all(|gradient| gradient.abs() < 1e-6));
    }

    #[test]
    fn the_largest_come_first() {
        let mut row = vec![1.0, 3.0, 2.0, 3.0, 0.0];
        let (ids, logs) = top_of_row(&mut row, 3, None);
        assert_eq!(ids, [1.0, 3.0, 2.0]);
        assert_eq!(logs[0], logs[1]);
        assert!((logs[0] - logs[2] - 1.0).abs() < 1e-6);
    }
}
