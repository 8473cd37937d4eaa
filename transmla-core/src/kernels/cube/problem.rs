//! Which calls the fused kernel takes, as numbers.

use burn::tensor::{DType, Tensor};
use transmla_checkpoint::config::AttentionParameters;

use crate::kernels::cached_values::CachedValues;

/// Most cubes in one direction of a launch that every device allows.
const MOST_CUBES: usize = 65535;

/// One step of decoding.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(super) batch: usize,
    /// H.
    pub(super) heads: usize,
    /// G.
    pub(super) groups: usize,
    /// New tokens, the last ones of each sequence.
    pub(super) new: usize,
    /// Of a query and of a key.
    pub(super) width: usize,
    /// d_v.
    pub(super) value_width: usize,
    /// Values are the first numbers of their keys.
    pub(super) in_keys: bool,
    /// The cache's format.
    pub(super) dtype: DType,
    /// Tokens of each sequence.
    pub(super) lengths: Vec<usize>,
    pub(super) parameters: AttentionParameters,
}

impl Problem {
    /// Of tensors whose shapes fit each other and 32-bit indices; nothing of others.
    pub(super) fn new(
        q: &Tensor<4>,
        keys: &Tensor<4>,
        values: &CachedValues,
        lengths: &[usize],
        parameters: &AttentionParameters,
    ) -> Option<Self> {
        let [batch, heads, new, width] = q.dims();
        let [key_batch, groups, longest, key_width] = keys.dims();
        let (value_dims, value_dtype) = match values {
            CachedValues::Apart(values) => (values.dims(), values.dtype()),
            // The kernel has no scales.
            CachedValues::InScaledKeys { .. } => return None,
            CachedValues::InKeys(value_width) => ([batch, groups, longest, *value_width], keys.dtype()),
        };
        let [.., value_width] = value_dims;
        let none_empty = batch * heads * new * width * groups * value_width > 0;
        let same = [key_batch, key_width] == [batch, width] && value_dims[..3] == [batch, groups, longest];
        let in_keys = matches!(values, CachedValues::InKeys(_));
        let fits = none_empty
            && same
            && !(in_keys && value_width > width)
            && heads.is_multiple_of(groups)
            && (batch * groups).max(heads / groups * new) <= MOST_CUBES
            && lengths.len() == batch
            && lengths.iter().all(|length| (1..=longest).contains(length));
        let formats = q.dtype() == DType::F32
            && value_dtype == keys.dtype()
            && matches!(keys.dtype(), DType::F32 | DType::F16 | DType::BF16);
        let most = batch * width.max(value_width) * (groups * longest).max(heads * new);
        (fits && formats && u32::try_from(most).is_ok()).then(|| Self {
            batch,
            heads,
            groups,
            new,
            width,
            value_width,
            in_keys,
            dtype: keys.dtype(),
            lengths: lengths.to_vec(),
            parameters: *parameters,
        })
    }

    /// Rows of queries that a key head meets.
    pub(super) fn rows(&self) -> usize {
        self.heads / self.groups * self.new
    }

    /// Most tokens that the queries of one sequence see together.
    pub(super) fn longest_span(&self) -> usize {
        let longest = self.lengths.iter().copied().max().unwrap_or(0);
        match self.parameters.window {
            None => longest,
            Some(window) => longest.min(window.saturating_add(self.new - 1)),
        }
    }
}
