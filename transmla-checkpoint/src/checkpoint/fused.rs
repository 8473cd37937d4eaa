//! Projections that a file has one below the other in one tensor, cut into those that other families have.

use std::collections::BTreeMap;
use std::ops::Range;

use super::shard::Shard;
use super::stored::{Arrangement, Stored};
use crate::error::CheckpointError;

/// Queries, keys and values.
const QKV: &str = "qkv_proj";

/// Gate and up-projection of the MLP.
const GATE_UP: &str = "gate_up_proj";

/// Puts the parts of each fused projection in its place: `qkv_proj` becomes `q_proj`, `k_proj` and `v_proj`, `gate_up_proj` becomes
/// `gate_proj` and `up_proj`.
///
/// Headers alone say where: `o_proj` has a column for each row of the queries, keys and values have the same number of rows, and so
/// have gate and up-projection.
pub(super) fn cut(tensors: &mut BTreeMap<String, Stored>, shards: &[Shard]) -> Result<(), CheckpointError> {
    let fused: Vec<String> = tensors.keys().filter(|name| parts(name).is_some()).cloned().collect();
    for name in fused {
        let (Some((module, projection, kind)), Some(whole)) = (parts(&name), tensors.get(&name)) else {
            continue;
        };
        let wrong = |problem: String| CheckpointError::File {
            path: shards[whole.shard].path().to_path_buf(),
            problem: format!("tensor {name} {problem}"),
        };
        let rows = whole.shape.first().copied().unwrap_or_default();
        let output = tensors.get(&format!("{module}.o_proj.weight"));
        let queries = output.and_then(|output| output.shape.get(1).copied());
        let places = match projection {
            QKV => in_order(queries, rows).ok_or_else(|| {
                let columns = queries.map_or_else(|| "is missing".into(), |columns| format!("has {columns} columns"));
                wrong(format!(
                    "has {rows} rows, which are not queries, keys and values where o_proj {columns}"
                ))
            })?,
            _ if rows.is_multiple_of(2) => vec![("gate_proj", 0..rows / 2), ("up_proj", rows / 2..rows)],
            _ => {
                return Err(wrong(format!(
                    "has {rows} rows, which are not as many of the gate as of the up-projection"
                )));
            }
        };
        let mut cut = Vec::new();
        for (part, rows) in places {
            let stored = whole.rows(&name, rows.clone())?.ok_or_else(|| {
                let what = format!("rows {} to {} for {part}", rows.start, rows.end);
                wrong(format!(
                    "cannot be cut at {what}: they share a block of numbers with other rows"
                ))
            })?;
            cut.push((format!("{module}.{part}.{kind}"), stored));
        }
        // Beside projections of their own it is a tensor that no model has, and is refused as such.
        if cut.iter().all(|(name, _)| !tensors.contains_key(name)) {
            tensors.remove(&name);
            tensors.extend(cut);
        }
    }
    Ok(())
}

/// Module, projection and `weight` or `bias` of a fused projection.
fn parts(name: &str) -> Option<(&str, &str, &str)> {
    let (rest, kind) = name.rsplit_once('.')?;
    let (module, projection) = rest.rsplit_once('.')?;
    let is_fused = [QKV, GATE_UP].contains(&projection) && ["weight", "bias"].contains(&kind);
    is_fused.then_some((module, projection, kind))
}

/// The rows of queries, keys and values.
fn in_order(queries: Option<usize>, rows: usize) -> Option<Vec<(&'static str, Range<usize>)>> {
    let queries = queries.filter(|queries| *queries > 0)?;
    let keys = rows
        .checked_sub(queries)
        .filter(|both| *both > 0 && both.is_multiple_of(2))?
        / 2;
    Some(vec![
        ("q_proj", 0..queries),
        ("k_proj", queries..queries + keys),
        ("v_proj", queries + keys..rows),
    ])
}

impl Stored {
    /// Some rows of it (numbers of a vector); nothing if they do not begin and end where blocks of numbers do.
    ///
    /// # Errors
    /// The number format cannot be decoded.
    pub(super) fn rows(&self, name: &str, rows: Range<usize>) -> Result<Option<Self>, CheckpointError> {
        let all = self.shape.first().copied().unwrap_or_default();
        if rows.start >= rows.end || rows.end > all || self.elements() == 0 {
            return Ok(None);
        }
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let numbers = self.numbers(name)?;
        let (block, block_bytes) = (numbers.block(), numbers.block_bytes() as u64);
        let at = |number: usize| self.bytes.start + (number / block) as u64 * block_bytes;
        let width = self.elements() / all;
        let is_whole = (rows.start * width).is_multiple_of(block) && (rows.end * width).is_multiple_of(block);
        let (bytes, arrangement) = match &self.arrangement {
            Arrangement::Plain | Arrangement::OneMore if is_whole => {
                (at(rows.start * width)..at(rows.end * width), self.arrangement.clone())
            }
            Arrangement::Strided { strides } => {
                let first = rows.start * strides[0];
                let span: usize = shape
                    .iter()
                    .zip(strides)
                    .map(|(size, stride)| (size - 1) * stride)
                    .sum();
                (at(first)..at(first + span + 1), self.arrangement.clone())
            }
            Arrangement::Scaled { scales, block } if rows.start.is_multiple_of(block[0]) => {
                let of_blocks = rows.start / block[0]..rows.end.div_ceil(block[0]);
                let Some(scales) = scales.rows(name, of_blocks)? else {
                    return Ok(None);
                };
                let arrangement = Arrangement::Scaled {
                    scales: Box::new(scales),
                    block: *block,
                };
                (at(rows.start * width)..at(rows.end * width), arrangement)
            }
            _ => return Ok(None),
        };
        Ok(Some(Self {
            shard: self.shard,
            dtype: self.dtype,
            shape,
            bytes,
            arrangement,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::tensor_dtype::TensorDtype;
    use super::*;

    #[test]
    fn names_of_fused_projections() {
        let at = "model.layers.3.self_attn";
        assert_eq!(
            parts("model.layers.3.self_attn.qkv_proj.weight"),
            Some((at, QKV, "weight"))
        );
        assert_eq!(parts("model.layers.3.self_attn.qkv_proj.bias"), Some((at, QKV, "bias")));
        assert_eq!(
            parts("model.layers.3.mlp.gate_up_proj.weight"),
            Some(("model.layers.3.mlp", GATE_UP, "weight"))
        );
        for name in [
            "model.layers.3.mlp.up_proj.weight",
            "qkv_proj.weight",
            "a.qkv_proj.scale",
            "a.experts.gate_up_proj",
        ] {
            assert_eq!(parts(name), None, "{name}");
        }
    }

    /// A matrix that lies on its side, as some that torch has saved do: rows are a number apart, columns a whole column.
    #[test]
    fn rows_of_a_matrix_on_its_side() {
        let matrix = Stored {
            shard: 0,
            dtype: TensorDtype::from(safetensors::Dtype::F32),
            shape: vec![6, 3],
            bytes: 100..100 + 4 * 18,
            arrangement: Arrangement::Strided { strides: vec![1, 6] },
        };
        let rows = matrix.rows("matrix", 2..5).unwrap().unwrap();
        // From (2, 0) to behind (4, 2).
        assert_eq!((rows.shape.as_slice(), rows.bytes.clone()), (&[3, 3][..], 108..168));
        assert_eq!(rows.strides(), Some(&[1, 6][..]));
        assert!(matrix.rows("matrix", 4..7).unwrap().is_none());
    }

    #[test]
    fn keys_and_values_share_what_queries_leave() {
        let names = |queries, rows| {
            let parts = in_order(queries, rows)?;
            Some(parts.into_iter().map(|(_, rows)| rows).collect::<Vec<_>>())
        };
        assert_eq!(names(Some(8), 12), Some(vec![0..8, 8..10, 10..12]));
        for (queries, rows) in [(None, 12), (Some(0), 12), (Some(12), 12), (Some(8), 11), (Some(16), 12)] {
            assert_eq!(names(queries, rows), None, "{queries:?}, {rows}");
        }
    }
}
