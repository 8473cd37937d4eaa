//! Small safetensors files that hold token ids or logits.

use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::atomic::replace_file;
use super::regular::read_regular;
use crate::error::CheckpointError;
use crate::tokens::TokenBatch;

/// Maximum size of a file of token ids, in bytes: 128 million ids of eight bytes.
const LARGEST: u64 = 1 << 30;

/// Reads `input_ids`, integers of shape `[batch, sequence]`, from a safetensors file.
///
/// # Errors
/// The file or tensor is absent, is not a matrix of i64 or i32, is empty, or holds negative ids.
pub fn read_input_ids(path: &Path) -> Result<TokenBatch, CheckpointError> {
    let bytes = read_regular(path, LARGEST)?;
    let file = SafeTensors::deserialize(&bytes).map_err(|e| CheckpointError::Safetensors {
        path: path.to_path_buf(),
        problem: e.to_string(),
    })?;
    let unfit = |problem: String| CheckpointError::TokenFile {
        path: path.to_path_buf(),
        problem,
    };
    let view = file.tensor("input_ids").map_err(|_| {
        let names = file.names().join(", ");
        unfit(format!("expected a tensor input_ids, found only [{names}]"))
    })?;
    let &[batch, sequence] = view.shape() else {
        let shape = view.shape();
        return Err(unfit(format!(
            "expected input_ids of shape [batch, sequence], found {shape:?}"
        )));
    };
    let ids: Vec<i64> = match view.dtype() {
        Dtype::I64 => view
            .data()
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b))
            .collect(),
        Dtype::I32 => view
            .data()
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| i64::from(i32::from_le_bytes(*b)))
            .collect(),
        other => {
            return Err(CheckpointError::Dtype {
                name: "input_ids".into(),
                found: format!("{other:?}"),
                supported: "I64, I32",
            });
        }
    };
    TokenBatch::from_ids(ids, batch, sequence).map_err(|error| unfit(error.to_string()))
}

/// Writes `logits` of shape `[batch, sequence, vocabulary]` in `f32`, through a temporary file.
pub fn write_logits(path: &Path, logits: &[f32], shape: [usize; 3]) -> Result<(), CheckpointError> {
    let bytes: Vec<u8> = logits.iter().flat_map(|v| v.to_le_bytes()).collect();
    let problem = |e: safetensors::SafeTensorError| CheckpointError::Safetensors {
        path: path.to_path_buf(),
        problem: e.to_string(),
    };
    let view = TensorView::new(Dtype::F32, shape.to_vec(), &bytes).map_err(problem)?;
    let data = safetensors::serialize([("logits", view)], None).map_err(problem)?;
    replace_file(path, &data).map_err(|e| CheckpointError::io("write", path, e))
}
