//! RoRoPE, FreqFold and collapse: from the keys' second moment to a decoupling.

use faer::{Mat, MatRef};
use transmla_lowrank::{LowRankError, principal_components};

use crate::check;
use crate::decoupling::Decoupling;
use crate::error::RopeError;
use crate::fold::FoldSpec;
use crate::shape::HeadShape;

/// Multiple of the mean diagonal entry that is added to the diagonal of each group's second moment.
///
/// It is part of the published method. It shifts all eigenvalues by the same amount and leaves the eigenvectors as they are,
/// so the result depends on it only by rounding.
pub const DAMPING: f64 = 0.01;

/// Decouples RoPE: finds the rotation that concentrates the energy of the keys in one shared rotary key.
///
/// Adjacent frequencies form groups of `F`. Within a group, the complex key entries of all heads are rotated by the real
/// orthogonal eigenvectors of their second moment. Real and imaginary parts are rotated in the same way, so the rotation
/// commutes with RoPE to the extent that the frequencies of the group agree. The first `F/c` principal components of group
/// `t` become slots `t·F/c ..` of the rotary key, slot `m` turning at `theta^(-2m/d_r)`, every `c`-th frequency of the original
/// heads; all others lose their position.
///
/// The result is deterministic: the entry of largest magnitude of each eigenvector is positive. With `F = c = 1` and one key
/// head the rotation is the identity.
///
/// # Shapes
///
/// `key_moment`: `[K, K]` with `K = G·d`, the second moment `W_k C W_kᵀ` of all keys, up to a factor; it is read as
/// symmetric (the mean of it and its transpose).
///
/// # Errors
///
/// An invalid `shape` as in [`HeadShape::new`], [`RopeError::FoldShape`] if `fold` was made for another head width,
/// [`RopeError::Shape`] or [`RopeError::NotFinite`] for a bad moment, [`RopeError::Eigen`] if the solver fails.
///
/// # Source
///
/// TransMLA, arXiv 2502.07864: RoRoPE (rotating all heads' keys at one frequency by their principal components) and
/// FreqFold (treating adjacent frequencies as one).
pub fn rororope(key_moment: MatRef<'_, f64>, shape: HeadShape, fold: &FoldSpec) -> Result<Decoupling, RopeError> {
    Ok(KeyRotation::fit(key_moment, shape, fold)?.decoupling())
}

/// The rotations behind a [`Decoupling`], one small matrix per frequency group, in which many decouplings can be stored.
///
/// The matrices of a decoupling have `O(K²)` entries, the rotations `K·G·F/2` in all.
#[derive(Debug, Clone)]
pub struct KeyRotation {
    shape: HeadShape,
    fold: FoldSpec,
    /// `[G·F, G·F]` per group, components as columns; none for keys without positions.
    groups: Vec<Mat<f64>>,
}

impl KeyRotation {
    /// Fits the rotations as [`rororope`] describes.
    ///
    /// # Errors
    ///
    /// As [`rororope`].
    pub fn fit(key_moment: MatRef<'_, f64>, shape: HeadShape, fold: &FoldSpec) -> Result<Self, RopeError> {
        let groups = fit_groups(key_moment, shape, fold)?;
        Ok(Self {
            shape,
            fold: *fold,
            groups,
        })
    }

    /// None, for keys that have no position: see [`Decoupling::without_positions`].
    pub fn without_positions(shape: HeadShape, fold: &FoldSpec) -> Self {
        Self {
            shape,
            fold: *fold,
            groups: Vec::new(),
        }
    }

    /// The entries of all rotations, group after group, column after column, for [`Self::from_values`].
    pub fn values(&self) -> impl Iterator<Item = f64> + '_ {
        let columns = |group: &'_ Mat<f64>| {
            (0..group.ncols())
                .map(|j| group.col_as_slice(j).to_vec())
                .collect::<Vec<_>>()
        };
        self.groups.iter().flat_map(columns).flatten()
    }

    /// The rotations with these entries, to the bit; none at all for keys without positions. Nothing for another number of entries.
    pub fn from_values(shape: HeadShape, fold: &FoldSpec, values: &[f64]) -> Option<Self> {
        if values.is_empty() {
            return Some(Self::without_positions(shape, fold));
        }
        let size = shape.key_heads * fold.freqfold();
        let fits = fold.head_dim() == shape.head_dim && values.len() == fold.groups() * size * size;
        fits.then(|| {
            let group = |entries: &[f64]| Mat::from_fn(size, size, |i, j| entries[j * size + i]);
            Self {
                shape,
                fold: *fold,
                groups: values.chunks_exact(size * size).map(group).collect(),
            }
        })
    }

    /// The folding of the rotations.
    pub fn fold(&self) -> &FoldSpec {
        &self.fold
    }

    /// The split that follows from the rotations.
    pub fn decoupling(&self) -> Decoupling {
        if self.groups.is_empty() {
            return Decoupling::without_positions(self.shape, self.fold.rope_dim());
        }
        let mut parts = Parts::new(self.shape, &self.fold);
        for (group, rotation) in self.groups.iter().enumerate() {
            parts.place(&group_entries(self.shape, &self.fold, group), rotation.as_ref());
        }
        parts.into_decoupling()
    }
}

fn fit_groups(key_moment: MatRef<'_, f64>, shape: HeadShape, fold: &FoldSpec) -> Result<Vec<Mat<f64>>, RopeError> {
    shape.check()?;
    if fold.head_dim() != shape.head_dim {
        return Err(RopeError::FoldShape {
            expected: fold.head_dim(),
            found: shape.head_dim,
        });
    }
    let width = shape.key_width();
    check::shape("the key moment", key_moment, width, width)?;
    check::finite("the key moment", key_moment)?;

    (0..fold.groups())
        .map(|group| {
            let entries = group_entries(shape, fold, group);
            principal_rotation(group_moment(key_moment, shape, &entries).as_ref(), group)
        })
        .collect()
}

/// One complex key entry: pair `pair` of key head `head`.
#[derive(Clone, Copy)]
struct Entry {
    head: usize,
    pair: usize,
}

/// The `G·F` entries of a group, ordered (e, g, a) for pairs `tF + a·c + e`.
///
/// Every order spans the same components; this is the published one, which decides ties between equal eigenvalues.
fn group_entries(shape: HeadShape, fold: &FoldSpec, group: usize) -> Vec<Entry> {
    let (first, collapse) = (group * fold.freqfold(), fold.collapse());
    let mut entries = Vec::with_capacity(shape.key_heads * fold.freqfold());
    for e in 0..collapse {
        for head in 0..shape.key_heads {
            entries.extend((0..fold.slots_per_group()).map(|a| Entry {
                head,
                pair: first + a * collapse + e,
            }));
        }
    }
    entries
}

/// `Re(Σ z zᴴ)` of the entries: the sum of the real parts' and the imaginary parts' second moments.
fn group_moment(key_moment: MatRef<'_, f64>, shape: HeadShape, entries: &[Entry]) -> Mat<f64> {
    let pairs = shape.pairs();
    let row = |entry: Entry| entry.head * shape.head_dim + entry.pair;
    let both = |i: usize, j: usize| key_moment[(i, j)] + key_moment[(i + pairs, j + pairs)];
    Mat::from_fn(entries.len(), entries.len(), |i, j| {
        let (i, j) = (row(entries[i]), row(entries[j]));
        0.5 * (both(i, j) + both(j, i))
    })
}

/// The eigenvectors of the damped moment as columns, by descending eigenvalue, each with its largest entry positive.
fn principal_rotation(moment: MatRef<'_, f64>, group: usize) -> Result<Mat<f64>, RopeError> {
    let size = moment.nrows();
    let components = principal_components(moment, size, DAMPING).map_err(|error| match error {
        // Sums of finite entries can overflow.
        LowRankError::NotFinite { row, column, value, .. } => RopeError::NotFinite {
            what: "the sum of a group's key moments",
            row,
            column,
            value: value.to_string(),
        },
        _ => RopeError::Eigen { group, size },
    })?;
    Ok(components.vectors)
}

/// The matrices of a [`Decoupling`] while groups are written into them; the last two have one matrix per key head.
struct Parts {
    shape: HeadShape,
    slots: usize,
    slots_per_group: usize,
    next_slot: usize,
    next_nope: usize,
    key_rope: Mat<f64>,
    key_nope: Mat<f64>,
    query_rope: Vec<Mat<f64>>,
    key_up: Vec<Mat<f64>>,
}

impl Parts {
    fn new(shape: HeadShape, fold: &FoldSpec) -> Self {
        let (width, head_dim, rope_dim) = (shape.key_width(), shape.head_dim, fold.rope_dim());
        let nope = width - rope_dim;
        Self {
            shape,
            slots: fold.slots(),
            slots_per_group: fold.slots_per_group(),
            next_slot: 0,
            next_nope: 0,
            key_rope: Mat::zeros(rope_dim, width),
            key_nope: Mat::zeros(nope, width),
            query_rope: vec![Mat::zeros(rope_dim, head_dim); shape.key_heads],
            key_up: vec![Mat::zeros(head_dim, nope); shape.key_heads],
        }
    }

    /// Writes the first components of a group as slots of the rotary key and the others as NoPE pairs.
    fn place(&mut self, entries: &[Entry], rotation: MatRef<'_, f64>) {
        let (head_dim, pairs) = (self.shape.head_dim, self.shape.pairs());
        let nope_pairs = self.key_nope.nrows() / 2;
        for (component, coefficients) in rotation.col_iter().enumerate() {
            let is_slot = component < self.slots_per_group;
            for (entry, &value) in entries.iter().zip(coefficients.iter()) {
                for part in 0..2 {
                    let dim = entry.pair + part * pairs;
                    let column = entry.head * head_dim + dim;
                    if is_slot {
                        let row = self.next_slot + part * self.slots;
                        self.key_rope[(row, column)] = value;
                        self.query_rope[entry.head][(row, dim)] = value;
                    } else {
                        let row = self.next_nope + part * nope_pairs;
                        self.key_nope[(row, column)] = value;
                        self.key_up[entry.head][(dim, row)] = value;
                    }
                }
            }
            if is_slot {
                self.next_slot += 1;
            } else {
                self.next_nope += 1;
            }
        }
    }

    fn into_decoupling(self) -> Decoupling {
        let shape = self.shape;
        let per_query_head = |parts: &[Mat<f64>]| {
            (0..shape.query_heads)
                .map(|head| parts[shape.key_head_of(head)].clone())
                .collect()
        };
        Decoupling {
            shape,
            query_rope: per_query_head(&self.query_rope),
            key_up: per_query_head(&self.key_up),
            key_rope: self.key_rope,
            key_nope: self.key_nope,
        }
    }
}
