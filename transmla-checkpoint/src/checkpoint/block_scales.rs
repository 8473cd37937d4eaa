//! Weights of 8 bits with a scale for each block of a matrix, as DeepSeek-V3 and Qwen3-FP8 have them: `weight` in `F8_E4M3`, and
//! `weight_scale_inv`, which its blocks are multiplied by.

use std::collections::BTreeMap;
use std::path::Path;

use safetensors::Dtype;

use super::regular::read_regular;
use super::stored::{Arrangement, Stored};
use super::tensor_dtype::TensorDtype;
use crate::error::CheckpointError;

/// What the scales of a matrix are called.
const SCALES: &str = "_scale_inv";

/// Maximum size in bytes of a config.json.
const LARGEST_CONFIG: u64 = 16 << 20;

/// Rows and columns of a block, where `quantization_config` describes this form.
///
/// # Errors
/// In words, what about it is another form.
pub(crate) fn blocks_of(quantization: &serde_json::Map<String, serde_json::Value>) -> Result<[usize; 2], String> {
    let text = |key: &str| quantization.get(key).and_then(serde_json::Value::as_str);
    if text("quant_method") != Some("fp8") {
        return Err("quant_method is another than fp8".into());
    }
    if let Some(format) = text("fmt").filter(|format| !["e4m3", "float8_e4m3fn"].contains(format)) {
        return Err(format!("fmt is {format}, not e4m3"));
    }
    let sizes = quantization
        .get("weight_block_size")
        .and_then(serde_json::Value::as_array);
    let sizes: Option<Vec<usize>> = sizes.and_then(|sizes| {
        let size = |size: &serde_json::Value| {
            usize::try_from(size.as_u64()?)
                .ok()
                .filter(|size| (1..=1 << 20).contains(size))
        };
        sizes.iter().map(size).collect()
    });
    match sizes.as_deref() {
        Some([rows, columns]) => Ok([*rows, *columns]),
        _ => Err("weight_block_size is not two sizes".into()),
    }
}

/// The blocks that config.json of a folder says its weights have, if it says so.
pub(super) fn blocks_in(folder: &Path) -> Option<[usize; 2]> {
    let bytes = read_regular(&folder.join("config.json"), LARGEST_CONFIG).ok()?;
    let config: serde_json::Value =
        serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    blocks_of(config.get("quantization_config")?.as_object()?).ok()
}

/// Gives each matrix of 8 bits its scales, which are no tensors of their own any more.
///
/// # Errors
/// Scales are missing, or are not one for each block.
pub(super) fn pair(
    tensors: &mut BTreeMap<String, Stored>,
    block: [usize; 2],
    folder: &Path,
) -> Result<(), CheckpointError> {
    let eight_bits = TensorDtype::from(Dtype::F8_E4M3);
    let names: Vec<String> = tensors
        .iter()
        .filter(|(_, stored)| stored.dtype == eight_bits)
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        let of_scales = format!("{name}{SCALES}");
        let scales = tensors
            .remove(&of_scales)
            .ok_or_else(|| CheckpointError::MissingTensor {
                name: of_scales.clone(),
                folder: folder.to_path_buf(),
            })?;
        let Some(stored) = tensors.get_mut(&name) else { continue };
        let expected: Vec<usize> = stored
            .shape
            .iter()
            .zip(block)
            .map(|(size, block)| size.div_ceil(block))
            .collect();
        if stored.shape.len() != 2 || scales.shape != expected {
            return Err(CheckpointError::Shape {
                name: of_scales,
                expected,
                found: scales.shape,
            });
        }
        scales.dtype.numbers(&of_scales)?;
        stored.arrangement = Arrangement::Scaled {
            scales: Box::new(scales),
            block,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn the_form_is_told_by_the_configuration() {
        let blocks = |value: Value| blocks_of(value.as_object().unwrap());
        let known = json!({"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 64]});
        assert_eq!(blocks(known), Ok([128, 64]));
        for other in [
            json!({"quant_method": "gptq", "weight_block_size": [128, 128]}),
            json!({"quant_method": "fp8"}),
            json!({"quant_method": "fp8", "weight_block_size": [128]}),
            json!({"quant_method": "fp8", "weight_block_size": [0, 128]}),
            json!({"quant_method": "fp8", "weight_block_size": [128, 128], "fmt": "e5m2"}),
        ] {
            assert!(blocks(other.clone()).is_err(), "{other}");
        }
    }
}
