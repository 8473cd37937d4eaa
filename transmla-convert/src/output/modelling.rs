//! What stock transformers reads beside the weights: code of a family's own class, and how to generate.

use serde_json::{Map, Value};
use transmla_core::config::{CACHE_KEYS, CONFIGURATION_MODULE, LatentStyle, MODELLING_MODULE};

use crate::output::json::to_json;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

const GENERATION_CONFIG: &str = "generation_config.json";

const CONFIGURATION: &str = include_str!("../../python/configuration_transmla.py");
const MODELLING: &str = include_str!("../../python/modeling_transmla.py");

/// The files that go beside the weights, as name and contents; none for a stock model.
pub(crate) fn modelling_files(plan: &Plan) -> Vec<(String, &'static str)> {
    match plan.style() {
        LatentStyle::DeepseekV3 => Vec::new(),
        LatentStyle::Family => vec![
            (format!("{CONFIGURATION_MODULE}.py"), CONFIGURATION),
            (format!("{MODELLING_MODULE}.py"), MODELLING),
        ],
    }
}

/// A source's file as a converted model has it: `generation_config.json` asks for no cache that was made for the
/// source's class, as Gemma 2's does.
pub(crate) fn companion(name: &str, contents: Vec<u8>) -> Result<Vec<u8>, ConvertError> {
    if name != GENERATION_CONFIG {
        return Ok(contents);
    }
    // What is not JSON, or needs no change, is copied as it is.
    let Ok(mut keys) = serde_json::from_slice::<Map<String, Value>>(&contents) else {
        return Ok(contents);
    };
    let before = keys.len();
    keys.retain(|key, _| !CACHE_KEYS.contains(&key.as_str()));
    if keys.len() == before {
        return Ok(contents);
    }
    let mut changed = to_json(GENERATION_CONFIG, &keys)?;
    changed.push(b'\n');
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use transmla_core::config::{FAMILIES, WindowRule};

    use super::*;

    #[test]
    fn caches_of_the_source_class_are_not_asked_for() {
        let name = "generation_config.json";
        let hybrid = br#"{"bos_token_id": 2, "cache_implementation": "hybrid", "cache_config": {}}"#;
        let kept: Value = serde_json::from_slice(&companion(name, hybrid.to_vec()).unwrap()).unwrap();
        assert_eq!(kept, serde_json::json!({"bos_token_id": 2}));
        for same in [r#"{ "bos_token_id":2 }"#, "not JSON", "[1]"] {
            assert_eq!(companion(name, same.into()).unwrap(), same.as_bytes());
        }
        assert_eq!(companion("tokenizer_config.json", hybrid.to_vec()).unwrap(), hybrid);
    }

    /// config.json names a class and a `model_type` for every family; the code must have them.
    #[test]
    fn the_code_has_every_family() {
        for family in FAMILIES {
            let class = format!("class {}(TransMLAForCausalLM):", family.latent_class());
            assert!(MODELLING.contains(&class), "{class}");
            let class = format!(
                "class {}(TransMLAConfig):\n    model_type = \"{}\"",
                family.latent_config_class(),
                family.latent_model_type()
            );
            assert!(CONFIGURATION.contains(&class), "{class}");
            let entry = format!("\n    \"{}\": dict(", family.model_type);
            let entry = CONFIGURATION
                .split_once(&entry)
                .expect(&entry)
                .1
                .lines()
                .next()
                .unwrap();
            let window = match family.window {
                WindowRule::Never => "",
                WindowRule::All => "window=\"all\"",
                WindowRule::Alternate => "window=\"alternate\"",
                WindowRule::Pattern => "window=\"pattern\"",
                WindowRule::SwitchedAll
                | WindowRule::Switched
                | WindowRule::SwitchedAlternate
                | WindowRule::SwitchedWithoutPositions => "window=\"switched\"",
            };
            assert!(entry.contains(window), "{entry}");
            assert_eq!(entry.contains("window="), family.window != WindowRule::Never, "{entry}");
        }
    }
}
