//! The family and the form that a config.json names.

use serde_json::Value;

use super::family::{DEEPSEEK, FAMILIES, Family};
use super::json::Keys;
use crate::error::CheckpointError;

/// The form that a `model_type` names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Grouped,
    LatentFamily,
    DeepseekV3,
}

/// The family of a configuration, and the form that its `model_type` names.
pub(super) fn find_family(keys: &Keys<'_>) -> Result<(&'static Family, Form), CheckpointError> {
    let class = keys
        .get("architectures")
        .and_then(|list| list.get(0))
        .and_then(Value::as_str);
    if keys.get("model_type").is_none()
        && let Some(family) = FAMILIES.iter().find(|family| {
            class.is_some_and(|class| class.strip_prefix(family.class_prefix).is_some_and(is_class_kind))
        })
    {
        let problem = format!(
            "is required and absent; architectures has the class of {:?}",
            family.model_type
        );
        return Err(CheckpointError::config("model_type", problem));
    }
    let model_type = keys.text("model_type")?;
    if model_type == DEEPSEEK.model_type {
        return Ok((&DEEPSEEK, Form::DeepseekV3));
    }
    for family in FAMILIES {
        if model_type == family.model_type {
            return Ok((family, Form::Grouped));
        }
        if model_type == family.latent_model_type() {
            return Ok((family, Form::LatentFamily));
        }
    }
    let mut supported: Vec<&str> = FAMILIES.iter().map(|f| f.model_type).collect();
    supported.push(DEEPSEEK.model_type);
    let supported = supported.join(", ");
    let inner = keys.get("text_config").and_then(|text| text.get("model_type"));
    Err(CheckpointError::Unsupported {
        feature: "model_type",
        found: format!("{model_type:?}"),
        supported: match inner.and_then(Value::as_str) {
            Some(inner) if supported.split(", ").any(|known| known == inner) => format!(
                "{supported}; the language model in text_config is {inner:?}: save it alone with transformers \
                 (`model.language_model.save_pretrained`) and convert that folder"
            ),
            _ => supported,
        },
    })
}

/// What stands behind a family's prefix in the names of its classes.
fn is_class_kind(rest: &str) -> bool {
    rest.starts_with("For") || rest == "Model"
}
