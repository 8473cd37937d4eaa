//! Features that a configuration may ask for and the decoder does not have.

use serde_json::{Map, Value};

use super::family::{Family, SoftCaps};
use super::form::Form;
use super::json::Keys;
use crate::checkpoint::block_scales::blocks_of;
use crate::error::CheckpointError;

/// Refuses by name what would make another model than the decoder runs.
pub(super) fn refuse_unsupported(keys: &Keys<'_>, family: &Family, form: Form) -> Result<(), CheckpointError> {
    let refuse = |feature: &'static str, found: &Value, supported: &str| {
        Err(CheckpointError::Unsupported {
            feature,
            found: found.to_string(),
            supported: supported.to_owned(),
        })
    };
    if let Some(found) = keys
        .get("quantization_config")
        .filter(|found| is_quantised(found) && !has_block_scales(found))
    {
        return refuse(
            "quantization_config",
            found,
            "unquantised fp32, fp16 or bf16 weights, and fp8 with scales of blocks (weight_block_size); take the model that this one was made from, or dequantise it first",
        );
    }
    for key in ["vision_config", "audio_config"] {
        if keys.get(key).is_some() {
            return refuse(
                key,
                &Value::from("present"),
                "language models alone, without towers for other inputs",
            );
        }
    }
    for key in ["text_config", "per_layer_config"] {
        if keys.get(key).is_some() {
            return refuse(
                key,
                &Value::from("present"),
                "one language model whose keys stand at the top of config.json and hold for all layers",
            );
        }
    }
    let truth = |key: &str| keys.get(key).filter(|value| *value != &Value::Bool(false));
    if let Some(found) = truth("mlp_bias").filter(|_| family.mlp_bias_key) {
        return refuse("mlp_bias", found, "MLPs without biases");
    }
    if let Some(found) = truth("use_bidirectional_attention").filter(|_| family.soft_caps != SoftCaps::Never) {
        return refuse(
            "use_bidirectional_attention",
            found,
            "attention to earlier tokens alone",
        );
    }
    if let Some(found) = keys.get("is_causal").filter(|value| *value == &Value::Bool(false)) {
        return refuse("is_causal", found, "attention to earlier tokens alone");
    }
    let ropes = ["rope_scaling", "rope_parameters"].map(|key| object(keys, key));
    // Families whose layers differ have one for each kind of layer.
    let by_layer = ropes
        .into_iter()
        .flatten()
        .flat_map(|rope| rope.values().filter_map(Value::as_object));
    for rope in by_layer.chain(ropes.into_iter().flatten()).chain([keys.0]) {
        let factor = Keys(rope).get("partial_rotary_factor");
        if let Some(found) = factor.filter(|found| found.as_f64() != Some(1.0)) {
            return refuse("partial_rotary_factor", found, "1");
        }
    }
    if form == Form::DeepseekV3 {
        let dense = keys.get("first_k_dense_replace").and_then(Value::as_u64).unwrap_or(0);
        if dense < keys.size_of("num_hidden_layers", &family.defaults)? as u64 {
            let found = Value::from(dense);
            return refuse(
                "experts (first_k_dense_replace)",
                &found,
                "models whose layers are all dense",
            );
        }
        if keys.get("rope_interleave").is_some_and(|v| v != &Value::Bool(true)) {
            return refuse("rope_interleave", &Value::Bool(false), "true");
        }
    }
    Ok(())
}

fn object<'a>(keys: &Keys<'a>, key: &str) -> Option<&'a Map<String, Value>> {
    keys.get(key).and_then(Value::as_object)
}

/// Whether the weights are of 8 bits with scales of blocks, which are dequantised while they are read.
fn has_block_scales(found: &Value) -> bool {
    found.as_object().is_some_and(|keys| blocks_of(keys).is_ok())
}

/// Whether `quantization_config` names a method; some exporters leave an empty one behind.
fn is_quantised(found: &Value) -> bool {
    let Some(keys) = found.as_object() else {
        return true;
    };
    match keys.get("quant_method") {
        None => !keys.is_empty(),
        Some(Value::Null) => false,
        Some(method) => method.as_str().is_none_or(|name| !name.eq_ignore_ascii_case("none")),
    }
}
