//! What a model's own `generation_config.json` says of generation.

use std::path::Path;

use transmla_checkpoint::CheckpointError;
use transmla_checkpoint::checkpoint::model_file;
use transmla_checkpoint::config::ModelConfig;

use super::sampler::Sampling;

/// Most bytes of generation_config.json.
const LARGEST_FILE: u64 = 1 << 20;

/// A model's own settings for generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerationSettings {
    /// Ids that end a text: those of config.json and of generation_config.json, where chat models name more of them.
    pub stop_ids: Vec<u32>,
    /// How the model's makers draw tokens: greedy unless `do_sample` is true.
    pub sampling: Sampling,
}

impl GenerationSettings {
    /// Those of a model without `generation_config.json`: the stop ids of config.json, and the most likely tokens.
    pub fn of_config(config: &ModelConfig) -> Self {
        Self {
            stop_ids: config.eos_token_ids.clone(),
            sampling: Sampling::default(),
        }
    }

    /// Those of a model's folder.
    ///
    /// # Errors
    /// A `generation_config.json` that cannot be read or is not a JSON object.
    pub fn from_folder(folder: &Path, config: &ModelConfig) -> Result<Self, CheckpointError> {
        let file = folder.join("generation_config.json");
        let mut settings = Self::of_config(config);
        let Some(text) = model_file(folder, "generation_config.json", LARGEST_FILE)? else {
            return Ok(settings);
        };
        let damaged = |problem: String| CheckpointError::Json {
            path: file.clone(),
            problem,
        };
        let json: serde_json::Value = serde_json::from_slice(text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text))
            .map_err(|error| damaged(error.to_string()))?;
        if !json.is_object() {
            return Err(damaged("expected an object".into()));
        }
        match &json["eos_token_id"] {
            serde_json::Value::Array(list) => settings.stop_ids.extend(list.iter().filter_map(as_id)),
            one => settings.stop_ids.extend(as_id(one)),
        }
        settings.stop_ids.sort_unstable();
        settings.stop_ids.dedup();
        settings.sampling = sampling(&json);
        Ok(settings)
    }
}

/// Values out of range are as if they were not there.
fn sampling(json: &serde_json::Value) -> Sampling {
    let number = |key: &str| json[key].as_f64().filter(|number| number.is_finite());
    let default = Sampling::default();
    let penalty = number("repetition_penalty").filter(|penalty| *penalty > 0.0);
    let penalised = Sampling {
        repetition_penalty: penalty.unwrap_or(default.repetition_penalty),
        ..default
    };
    if json["do_sample"] != true {
        return penalised;
    }
    let share = |key: &str| number(key).filter(|share| (0.0..=1.0).contains(share));
    Sampling {
        temperature: number("temperature").filter(|heat| *heat >= 0.0).unwrap_or(1.0),
        // transformers takes 0 for all.
        top_k: json["top_k"].as_u64().filter(|k| *k > 0).map(|k| k as usize),
        top_p: share("top_p").filter(|share| *share > 0.0).unwrap_or(default.top_p),
        min_p: share("min_p").unwrap_or(default.min_p),
        ..penalised
    }
}

fn as_id(value: &serde_json::Value) -> Option<u32> {
    value.as_u64().and_then(|id| u32::try_from(id).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn sampling_is_that_of_the_models_makers() {
        let greedy = json!({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1});
        assert_eq!(
            sampling(&greedy),
            Sampling {
                repetition_penalty: 1.1,
                ..Sampling::default()
            }
        );
        let drawn = json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0.05});
        let expected = Sampling {
            temperature: 0.6,
            top_k: Some(20),
            top_p: 0.9,
            min_p: 0.05,
            repetition_penalty: 1.0,
        };
        assert_eq!(sampling(&drawn), expected);
        let odd = json!({"do_sample": true, "temperature": -1, "top_p": 7, "top_k": 0, "repetition_penalty": 0});
        let plain = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        assert_eq!(sampling(&odd), plain);
    }
}
