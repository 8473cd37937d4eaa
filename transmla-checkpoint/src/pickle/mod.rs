//! Models that torch has saved (`pytorch_model.bin`), read without running anything.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `zip` | the list of files in the archive |
//! | `machine` | the program that says which tensors there are, run by a machine that knows a dozen names |
//! | `state` | tensors as views of the archive's files |

mod machine;
mod state;
mod zip;

use std::path::Path;

use crate::checkpoint::shard::Shard;
use crate::checkpoint::stored::Stored;
use crate::error::CheckpointError;

/// The weights, where one file has them all.
pub(crate) const SINGLE: &str = "pytorch_model.bin";

/// Which file has which tensor.
pub(crate) const INDEX: &str = "pytorch_model.bin.index.json";

/// Opens a file as the shard of this number; gives its tensors by name.
///
/// # Errors
/// [`CheckpointError::Pickle`].
pub(crate) fn open(path: &Path, number: usize) -> Result<(Shard, Vec<(String, Stored)>), CheckpointError> {
    state::open(path, number)
}
