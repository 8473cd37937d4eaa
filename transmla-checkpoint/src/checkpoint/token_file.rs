//! Small safetensors files that hold token ids or logits.

use std::collections::HashMap;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::atomic::replace_file;
use super::regular::read_regular;
use crate::error::CheckpointError;
use crate::tokens::TokenBatch;

/// Maximum size of a file of token ids, in bytes: 128 million ids of eight bytes.
const LARGEST: u64 = 1 << 30;

/// The key of a label in the metadata of a file.
const LABEL: &str = "transmla";

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

/// The contents of a safetensors file with `input_ids`, as [`read_input_ids`] reads them, and a label in its metadata.
///
/// # Errors
/// The ids cannot be told in the form of the file.
pub fn input_ids_file(tokens: &TokenBatch, label: &str) -> Result<Vec<u8>, CheckpointError> {
    let bytes: Vec<u8> = tokens.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
    let problem = |e: safetensors::SafeTensorError| CheckpointError::Safetensors {
        path: "input_ids".into(),
        problem: e.to_string(),
    };
    let view = TensorView::new(Dtype::I64, vec![tokens.batch(), tokens.sequence()], &bytes).map_err(problem)?;
    let metadata = HashMap::from([(LABEL.to_owned(), label.to_owned())]);
    safetensors::serialize([("input_ids", view)], Some(metadata)).map_err(problem)
}

/// The label of a file that [`input_ids_file`] made; nothing if it has none.
///
/// # Errors
/// The file cannot be read or is no safetensors file.
pub fn input_ids_label(path: &Path) -> Result<Option<String>, CheckpointError> {
    let bytes = read_regular(path, LARGEST)?;
    let (_, header) = SafeTensors::read_metadata(&bytes).map_err(|e| CheckpointError::Safetensors {
        path: path.to_path_buf(),
        problem: e.to_string(),
    })?;
    let metadata = header.metadata().as_ref();
    Ok(metadata.and_then(|metadata| metadata.get(LABEL).cloned()))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_as_they_were_written_with_their_label() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ids.safetensors");
        let tokens = TokenBatch::from_ids((0..6).collect(), 2, 3).unwrap();
        std::fs::write(&file, input_ids_file(&tokens, "a label").unwrap()).unwrap();
        assert_eq!(read_input_ids(&file).unwrap(), tokens);
        assert_eq!(input_ids_label(&file).unwrap().as_deref(), Some("a label"));
        write_logits(&file, &[1.0], [1, 1, 1]).unwrap();
        assert_eq!(input_ids_label(&file).unwrap(), None);
        std::fs::write(&file, "no file of tensors").unwrap();
        assert!(input_ids_label(&file).is_err());
    }
}
