//! Pairs that a slot may carry.

use crate::shape::HeadShape;

/// Rule for the key pairs that a slot may carry.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Eligibility {
    /// Each frequency belongs to the slot with which it is most coherent (among equals, the nearest in frequency), or to slot
    /// `j` for frequency `j` if there is a slot for each. A slot without any frequency stays empty: its rows are zero.
    Ownership,
    /// A slot may carry every pair whose coherence with it (0 to 1) is at least this, and at least the pair's coherence without
    /// position. If there is none, it carries the pair that is most coherent with it.
    Threshold(f64),
}

/// The pairs `g·J + j` that each slot owns.
pub(super) fn ownership(
    shape: HeadShape,
    frequencies: &[f64],
    slots: &[f64],
    coherence: &[Vec<f64>],
    power: &[f64],
) -> Vec<Vec<usize>> {
    let pairs = shape.pairs();
    let mut owned = vec![Vec::new(); coherence.len()];
    for pair in 0..pairs {
        let kept = |slot: &usize| -> f64 {
            let of_group = |group: usize| coherence[*slot][group * pairs + pair] * power[group * pairs + pair];
            (0..shape.key_heads).map(of_group).sum()
        };
        let owner = if coherence.len() >= pairs {
            Some(pair)
        } else {
            let apart = |slot: &usize| (slots[*slot] - frequencies[pair]).abs();
            let better = |a: &usize, b: &usize| kept(a).total_cmp(&kept(b)).then(apart(b).total_cmp(&apart(a)));
            (0..coherence.len()).max_by(better)
        };
        if let Some(owner) = owner {
            owned[owner].extend((0..shape.key_heads).map(|group| group * pairs + pair));
        }
    }
    owned
}

/// The pairs that a slot may carry under [`Eligibility::Threshold`].
pub(super) fn above(coherence: &[f64], still: &[f64], rho: f64) -> Vec<usize> {
    let chosen: Vec<usize> = (0..coherence.len())
        .filter(|i| coherence[*i] >= rho && coherence[*i] >= still[*i])
        .collect();
    if !chosen.is_empty() {
        return chosen;
    }
    // No pair is coherent enough: the most coherent one.
    (0..coherence.len())
        .max_by(|a, b| coherence[*a].total_cmp(&coherence[*b]))
        .into_iter()
        .collect()
}
