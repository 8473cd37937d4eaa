//! RoPE scaling for contexts longer than those of the pre-training.

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

use super::family::{Family, RopeRule};
use super::features::{FULL_LAYER, SLIDING_LAYER};
use super::json::Keys;
use crate::error::CheckpointError;

/// Scaling of RoPE's frequencies, by the `rope_type` of config.json.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum RopeScaling {
    /// Nothing.
    #[default]
    Default,
    /// Positions are divided by a number.
    Linear {
        /// The number.
        factor: f64,
    },
    /// Llama 3.1: long waves are slowed down, short ones kept, with a ramp in between.
    Llama3 {
        /// By how much long waves are slowed down.
        factor: f64,
        /// Waves longer than the original context over this are long.
        low_freq_factor: f64,
        /// Waves shorter than the original context over this are short.
        high_freq_factor: f64,
        /// Context of the pre-training.
        original_context: f64,
    },
    /// YaRN (arXiv 2309.00071, section 3): slow dimensions are interpolated, fast ones kept, scores sharpened.
    Yarn {
        /// By how much slow dimensions are slowed down.
        factor: f64,
        /// Turns within the original context above which a dimension is fast.
        beta_fast: f64,
        /// Turns below which it is slow.
        beta_slow: f64,
        /// Whether the bounds of the ramp are rounded to whole dimensions.
        truncate: bool,
        /// Context of the pre-training.
        original_context: f64,
        /// What rotated queries and keys are multiplied by.
        attention_factor: f64,
    },
}

impl RopeScaling {
    /// Its name in config.json.
    pub fn rope_type(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Linear { .. } => "linear",
            Self::Llama3 { .. } => "llama3",
            Self::Yarn { .. } => "yarn",
        }
    }

    /// What `rope_parameters` says of it, `rope_theta` apart; reads back as the same.
    pub(super) fn parameters(&self) -> Map<String, Value> {
        let mut out = Map::new();
        out.insert("rope_type".into(), json!(self.rope_type()));
        let mut set = |key: &str, number: f64| {
            let value = match number.fract() == 0.0 && key == "original_max_position_embeddings" {
                true => json!(number as u64),
                false => json!(number),
            };
            out.insert(key.to_owned(), value);
        };
        match *self {
            Self::Default => {}
            Self::Linear { factor } => set("factor", factor),
            Self::Llama3 {
                factor,
                low_freq_factor: low,
                high_freq_factor: high,
                original_context: context,
            } => {
                set("factor", factor);
                set("low_freq_factor", low);
                set("high_freq_factor", high);
                set("original_max_position_embeddings", context);
            }
            Self::Yarn {
                factor,
                beta_fast: fast,
                beta_slow: slow,
                truncate,
                original_context: context,
                attention_factor: sharpening,
            } => {
                set("factor", factor);
                set("beta_fast", fast);
                set("beta_slow", slow);
                set("original_max_position_embeddings", context);
                set("attention_factor", sharpening);
                out.insert("truncate".into(), json!(truncate));
            }
        }
        out
    }

    pub(super) fn attention_factor(&self) -> f64 {
        match self {
            Self::Yarn { attention_factor, .. } => *attention_factor,
            _ => 1.0,
        }
    }

    /// Scaled frequencies from plain ones.
    pub(super) fn apply(&self, mut plain: Vec<f64>, theta: f64) -> Vec<f64> {
        match *self {
            Self::Default => {}
            Self::Linear { factor } => plain.iter_mut().for_each(|f| *f /= factor),
            Self::Llama3 {
                factor,
                low_freq_factor,
                high_freq_factor,
                original_context,
            } => {
                for f in &mut plain {
                    // Turns within the original context, on the ramp from low to high.
                    let turns = original_context * *f / TAU;
                    let kept = ((turns - low_freq_factor) / (high_freq_factor - low_freq_factor)).clamp(0.0, 1.0);
                    *f = (1.0 - kept) * *f / factor + kept * *f;
                }
            }
            Self::Yarn {
                factor,
                beta_fast,
                beta_slow,
                truncate,
                original_context,
                ..
            } => {
                let dim = 2.0 * plain.len() as f64;
                // The dimension that turns so many times within the original context.
                let base = theta.ln().max(f64::MIN_POSITIVE);
                let dimension = |turns: f64| dim * (original_context / (turns * TAU)).ln() / (2.0 * base);
                let (mut low, mut high) = (dimension(beta_fast), dimension(beta_slow));
                if truncate {
                    (low, high) = (low.floor(), high.ceil());
                }
                // Each bound is held on its own side alone, as transformers does: beyond the other the ramp is a step.
                (low, high) = (low.max(0.0), high.min(dim - 1.0));
                if low == high {
                    high += 0.001;
                }
                for (j, f) in plain.iter_mut().enumerate() {
                    let slow = ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
                    *f = *f / factor * slow + *f * (1.0 - slow);
                }
            }
        }
        plain
    }

    fn read(rope: &Keys<'_>, top: &Keys<'_>, context: usize) -> Result<Self, CheckpointError> {
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        let factor = || match rope.number("factor")? {
            Some(factor) if factor < 1.0 => Err(CheckpointError::config("factor", format!("{factor} is less than 1"))),
            factor => Ok(factor),
        };
        let required = |key: &str, number: Option<f64>| {
            number.ok_or_else(|| CheckpointError::config(key, "is required by this rope_type and absent"))
        };
        let original = || {
            // Beside the scaling it counts before the one inside.
            let outside = top.number("original_max_position_embeddings")?;
            Ok(match outside {
                Some(outside) => Some(outside),
                None => rope.number("original_max_position_embeddings")?,
            })
        };
        match kind.map(Value::as_str) {
            // Without a type other keys do nothing.
            None | Some(Some("default" | "dynamic")) => Ok(Self::Default),
            Some(Some("linear")) => Ok(Self::Linear {
                factor: required("factor", factor()?)?,
            }),
            Some(Some("llama3")) => {
                let bound = |key: &str| required(key, rope.number(key)?);
                let (low, high) = (bound("low_freq_factor")?, bound("high_freq_factor")?);
                if low >= high {
                    return Err(CheckpointError::config(
                        "high_freq_factor",
                        format!("{high} is not greater than low_freq_factor {low}"),
                    ));
                }
                Ok(Self::Llama3 {
                    factor: required("factor", factor()?)?,
                    low_freq_factor: low,
                    high_freq_factor: high,
                    original_context: original()?.unwrap_or(context as f64),
                })
            }
            Some(Some("yarn")) => Self::read_yarn(rope, factor()?, original()?, context),
            Some(Some("longrope" | "su")) => Err(unsupported(rope.0, LONGROPE)),
            _ => Err(unsupported(rope.0, "rope_type default, linear, dynamic, llama3, yarn")),
        }
    }

    fn read_yarn(
        rope: &Keys<'_>,
        factor: Option<f64>,
        original: Option<f64>,
        context: usize,
    ) -> Result<Self, CheckpointError> {
        let original_context = original.unwrap_or(context as f64);
        let factor = match (factor, original) {
            (Some(factor), _) => factor,
            (None, Some(original)) => context as f64 / original,
            (None, None) => {
                return Err(CheckpointError::config(
                    "factor",
                    "is required by this rope_type and absent",
                ));
            }
        };
        let share = |key: &str| rope.get(key).and_then(Value::as_f64).unwrap_or(0.0);
        let (mscale, mscale_all) = (share("mscale"), share("mscale_all_dim"));
        let attention_factor = match rope.number("attention_factor")? {
            Some(given) => given,
            None if mscale > 0.0 && mscale_all > 0.0 => yarn_mscale(factor, mscale) / yarn_mscale(factor, mscale_all),
            None => yarn_mscale(factor, 1.0),
        };
        // A bound of 0 stands for the usual one.
        let bound = |key: &str, usual: f64| match rope.get(key).and_then(Value::as_f64) {
            Some(0.0) => Ok(usual),
            _ => Ok(rope.number(key)?.unwrap_or(usual)),
        };
        Ok(Self::Yarn {
            factor,
            beta_fast: bound("beta_fast", 32.0)?,
            beta_slow: bound("beta_slow", 1.0)?,
            truncate: rope.get("truncate") != Some(&Value::Bool(false)),
            original_context,
            attention_factor,
        })
    }
}

/// Why `longrope` is refused, which Phi-3's class takes other types for.
const LONGROPE: &str = "RoPE whose frequencies do not depend on the length of the text; longrope has others as soon as a text is longer than \
    original_max_position_embeddings, so keys that are cached before do not fit those behind: take the variant of the model for \
    short contexts (such as Phi-3-mini-4k-instruct)";

/// What config.json says of RoPE, wherever it says it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct RopeKeys {
    /// Base of the frequencies.
    pub theta: f64,
    /// What is done to them.
    pub scaling: RopeScaling,
    /// Tokens up to which that holds.
    pub limit: Option<usize>,
}

impl RopeKeys {
    /// From `rope_scaling` or, as transformers 5 writes it, `rope_parameters`; where both say something the first counts.
    ///
    /// A `rope_theta` inside counts before the one beside them.
    pub fn read(keys: &Keys<'_>, family: &Family, context: usize) -> Result<Self, CheckpointError> {
        let empty = Map::new();
        let rope = rope_object(keys)?.unwrap_or(&empty);
        if rope.values().any(Value::is_object) {
            return Err(unsupported(rope, "one RoPE for all layers"));
        }
        let beside = keys.number("rope_theta")?.unwrap_or(family.defaults.rope_theta);
        let read = Self::of(rope, beside, keys, context)?;
        match read.scaling {
            _ if family.rope != RopeRule::Unscaled => Ok(read),
            RopeScaling::Default if read.limit.is_none() => Ok(read),
            // Another name of it in the first files.
            RopeScaling::Yarn { .. } => Err(unsupported(rope, LONGROPE)),
            _ => Err(unsupported(
                rope,
                "rope_type default, the only one of this family's class beside longrope",
            )),
        }
    }

    /// Those of layers without and with a window, where a family has two.
    ///
    /// transformers 5 writes both into `rope_parameters`; older files have `rope_local_base_freq`, and a `rope_scaling` that is
    /// for layers without a window.
    pub fn read_both(keys: &Keys<'_>, family: &Family, context: usize) -> Result<[Self; 2], CheckpointError> {
        let object = |key: &str, value: Option<&'_ Value>| match value {
            None | Some(Value::Null) => Ok(Map::new()),
            Some(Value::Object(rope)) => Ok(rope.clone()),
            Some(other) => Err(CheckpointError::config(key, format!("{other} is not an object"))),
        };
        let both = object("rope_parameters", keys.get("rope_parameters"))?;
        if let Some(other) = both
            .keys()
            .find(|key| ![FULL_LAYER, SLIDING_LAYER].contains(&key.as_str()))
        {
            return Err(CheckpointError::config(
                "rope_parameters",
                format!(
                    "has {other:?} where this family has {FULL_LAYER} and {SLIDING_LAYER}, each with a RoPE of its own"
                ),
            ));
        }
        let mut full = object(FULL_LAYER, both.get(FULL_LAYER))?;
        full.extend(object("rope_scaling", keys.get("rope_scaling"))?);
        let sliding = object(SLIDING_LAYER, both.get(SLIDING_LAYER))?;
        let defaults = &family.defaults;
        let global = keys.number("rope_theta")?.unwrap_or(defaults.rope_theta);
        let local = keys
            .number("rope_local_base_freq")?
            .unwrap_or(defaults.local_rope_theta);
        Ok([
            Self::of(&full, global, keys, context)?,
            Self::of(&sliding, local, keys, context)?,
        ])
    }

    /// What one object says; `beside` is the base where it has none.
    fn of(rope: &Map<String, Value>, beside: f64, keys: &Keys<'_>, context: usize) -> Result<Self, CheckpointError> {
        let rope = Keys(rope);
        let theta = rope.number("rope_theta")?.unwrap_or(beside);
        if theta < 1.0 {
            return Err(CheckpointError::config("rope_theta", format!("{theta} is less than 1")));
        }
        let kind = rope.get("rope_type").or_else(|| rope.get("type"));
        let dynamic = kind.and_then(Value::as_str) == Some("dynamic");
        if dynamic && rope.number("factor")?.is_none() {
            return Err(CheckpointError::config(
                "factor",
                "is required by this rope_type and absent",
            ));
        }
        Ok(Self {
            theta,
            scaling: RopeScaling::read(&rope, keys, context)?,
            limit: dynamic.then_some(context),
        })
    }
}

/// The object that says how RoPE is scaled, if one has anything in it.
pub(super) fn rope_object<'a>(keys: &Keys<'a>) -> Result<Option<&'a Map<String, Value>>, CheckpointError> {
    let mut found = None;
    for key in ["rope_scaling", "rope_parameters"] {
        match keys.get(key) {
            Some(Value::Object(rope)) if rope.is_empty() => {}
            Some(Value::Object(rope)) => found = found.or(Some(rope)),
            Some(other) => return Err(CheckpointError::config(key, format!("{other} is not an object"))),
            None => {}
        }
    }
    Ok(found)
}

/// YaRN's sharpening of scores (its equation 22), with DeepSeek's weight.
fn yarn_mscale(factor: f64, weight: f64) -> f64 {
    if factor <= 1.0 {
        return 1.0;
    }
    0.1 * weight * factor.ln() + 1.0
}

/// What stock DeepSeek-V3 multiplies its score scale by, on top of the attention factor.
pub(super) fn deepseek_score_factor(keys: &Keys<'_>) -> Result<f64, CheckpointError> {
    let Some(rope) = rope_object(keys)?.map(Keys) else {
        return Ok(1.0);
    };
    let number = |key: &str| rope.get(key).and_then(Value::as_f64).filter(|n| *n > 0.0);
    Ok(match (number("factor"), number("mscale_all_dim")) {
        (Some(factor), Some(weight)) => yarn_mscale(factor, weight).powi(2),
        _ => 1.0,
    })
}

fn unsupported(rope: &serde_json::Map<String, Value>, supported: &str) -> CheckpointError {
    CheckpointError::Unsupported {
        feature: "RoPE scaling",
        found: Value::Object(rope.clone()).to_string(),
        supported: supported.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::family::FAMILIES;
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        for scaling in [
            RopeScaling::Default,
            RopeScaling::Linear { factor: 2.5 },
            RopeScaling::Llama3 {
                factor: 8.0,
                low_freq_factor: 1.0,
                high_freq_factor: 4.0,
                original_context: 8192.0,
            },
            RopeScaling::Yarn {
                factor: 4.0,
                beta_fast: 32.0,
                beta_slow: 1.0,
                truncate: false,
                original_context: 4096.0,
                attention_factor: 1.25,
            },
        ] {
            let mut config = Map::new();
            config.insert("rope_parameters".into(), Value::Object(scaling.parameters()));
            let read = RopeKeys::read(&Keys(&config), &FAMILIES[0], 16_384).unwrap();
            assert_eq!((read.scaling, read.theta, read.limit), (scaling, 10_000.0, None));
        }
    }
}
