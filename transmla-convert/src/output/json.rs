//! JSON files that are written.

use crate::spec::error::ConvertError;

/// The lines of a JSON file.
pub(crate) fn to_json(file: &'static str, value: &impl serde::Serialize) -> Result<Vec<u8>, ConvertError> {
    serde_json::to_vec_pretty(value).map_err(ConvertError::encode(file))
}
