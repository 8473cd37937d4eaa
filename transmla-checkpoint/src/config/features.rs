//! Features that some models have: activations, sliding windows, layers without positions.

use serde_json::Value;

use super::family::{Family, RopeRule, WindowRule};
use super::json::Keys;
use crate::error::CheckpointError;

/// The nonlinearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The Gaussian error linear unit, by its approximation with tanh.
    GeluTanh,
}

impl Activation {
    /// Its name in config.json.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
        }
    }

    pub(super) fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, CheckpointError> {
        let name = family.activation_keys.iter().find_map(|key| keys.get(key));
        match name.map_or(Some(family.default_activation), Value::as_str) {
            Some("silu" | "swish") => Ok(Self::Silu),
            // Three names of the same approximation.
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Self::GeluTanh),
            _ => Err(CheckpointError::Unsupported {
                feature: "hidden_act",
                found: name.map(Value::to_string).unwrap_or_default(),
                supported: "silu, gelu_pytorch_tanh".into(),
            }),
        }
    }
}

/// Sliding-window attention: a query sees itself and the `size - 1` tokens before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlidingWindow {
    /// Tokens that a query sees.
    pub size: usize,
    /// The layers that have it.
    pub layers: WindowLayers,
}

/// The layers with a sliding window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WindowLayers {
    /// All.
    All,
    /// Layers 0, 2, 4 …
    Even,
    /// From this one on.
    From(usize),
    /// Those that `layer_types` names.
    Listed(Vec<bool>),
}

impl SlidingWindow {
    /// Whether a layer has it.
    pub fn covers(&self, layer: usize) -> bool {
        match &self.layers {
            WindowLayers::All => true,
            WindowLayers::Even => layer.is_multiple_of(2),
            WindowLayers::From(first) => layer >= *first,
            WindowLayers::Listed(list) => list.get(layer).copied().unwrap_or(false),
        }
    }

    pub(super) fn read(keys: &Keys<'_>, family: &Family, num_layers: usize) -> Result<Option<Self>, CheckpointError> {
        let size = || match keys.is_null("sliding_window") {
            true => Ok(None),
            false => Ok(keys.tokens("sliding_window")?.or(family.defaults.sliding_window)),
        };
        let listed = match family.layer_types {
            true => layer_types(keys, num_layers)?,
            false => None,
        };
        let listed = match (listed, family.window) {
            (None, WindowRule::Pattern) => {
                let every = keys.optional_size("sliding_window_pattern")?.unwrap_or(PATTERN);
                let slides = |layer: usize| !(layer + 1).is_multiple_of(every);
                Some(WindowLayers::Listed((0..num_layers).map(slides).collect()))
            }
            (listed, _) => listed,
        };
        let size = match family.window {
            WindowRule::Never => return Ok(None),
            rule if rule.is_switched() && !keys.flag("use_sliding_window")? => None,
            _ => size()?,
        };
        let first = || {
            let first = keys.layers("max_window_layers")?;
            Ok::<_, CheckpointError>(first.unwrap_or(family.defaults.max_window_layers))
        };
        let layers = match (listed, size, family.window) {
            (Some(listed), ..) => listed,
            // Without a window no layer has one.
            (None, None, _) => return Ok(None),
            (None, _, WindowRule::Alternate) => WindowLayers::Even,
            (None, _, WindowRule::SwitchedWithoutPositions) => {
                let turns = layers_with_positions(keys, family, num_layers)?;
                WindowLayers::Listed(turns.into_iter().map(|turns| !turns).collect())
            }
            (None, _, WindowRule::Switched) => WindowLayers::From(first()?),
            (None, _, WindowRule::SwitchedAlternate) => {
                let end = first()?;
                let slides = |layer: usize| layer.is_multiple_of(2) && layer < end;
                WindowLayers::Listed((0..num_layers).map(slides).collect())
            }
            (None, ..) => WindowLayers::All,
        };
        let window = Self {
            size: size.unwrap_or(0),
            layers,
        };
        let slides = (0..num_layers).any(|layer| window.covers(layer));
        match size {
            Some(_) if slides => Ok(Some(window)),
            None if slides => Err(CheckpointError::config(
                "layer_types",
                "lists sliding_attention, but sliding_window and use_sliding_window give no window; set both, or list \
                 full_attention",
            )),
            _ => Ok(None),
        }
    }
}

/// `sliding_window_pattern` of the class.
const PATTERN: usize = 6;

/// `no_rope_layer_interval` of the class.
const INTERVAL: usize = 4;

/// Which layers have positions, for every layer.
pub(super) fn layers_with_positions(
    keys: &Keys<'_>,
    family: &Family,
    num_layers: usize,
) -> Result<Vec<bool>, CheckpointError> {
    if family.rope != RopeRule::SomeLayers {
        return Ok(vec![true; num_layers]);
    }
    let wrong = || {
        let problem = "is not a list with a 1 for each layer with RoPE and a 0 for each without";
        CheckpointError::config("no_rope_layers", problem)
    };
    let Some(value) = keys.get("no_rope_layers") else {
        let every = keys.optional_size("no_rope_layer_interval")?.unwrap_or(INTERVAL);
        return Ok((0..num_layers)
            .map(|layer| !(layer + 1).is_multiple_of(every))
            .collect());
    };
    // Entries behind the last layer are those of a longer model.
    let list = value
        .as_array()
        .filter(|list| list.len() >= num_layers)
        .ok_or_else(wrong)?;
    let turns = |entry: &Value| match (entry.as_u64(), entry.as_bool()) {
        (Some(0), _) | (_, Some(false)) => Ok(false),
        (Some(1), _) | (_, Some(true)) => Ok(true),
        _ => Err(wrong()),
    };
    list.iter().take(num_layers).map(turns).collect()
}

/// What `layer_types` calls a layer without a window.
pub(super) const FULL_LAYER: &str = "full_attention";

/// What it calls one with a window.
pub(super) const SLIDING_LAYER: &str = "sliding_attention";

/// The layers that slide, if config.json has a list of all layers.
fn layer_types(keys: &Keys<'_>, num_layers: usize) -> Result<Option<WindowLayers>, CheckpointError> {
    let Some(value) = keys.get("layer_types") else {
        return Ok(None);
    };
    let kinds = value.as_array().filter(|list| list.len() == num_layers);
    let kinds =
        kinds.ok_or_else(|| CheckpointError::config("layer_types", "is not a list with one entry for each layer"))?;
    let slides = |kind: &Value| match kind.as_str() {
        // The second name is that of older files.
        Some(FULL_LAYER | "attention") => Ok(false),
        Some(SLIDING_LAYER) => Ok(true),
        _ => Err(CheckpointError::Unsupported {
            feature: "layer_types",
            found: kind.to_string(),
            supported: "full_attention, sliding_attention".into(),
        }),
    };
    let slides: Vec<bool> = kinds.iter().map(slides).collect::<Result<_, _>>()?;
    Ok(Some(WindowLayers::Listed(slides)))
}
