//! What some models have and others do not.

use serde_json::Value;

use super::json::Keys;
use super::{Family, FeedForward, WindowRule};
use crate::CoreError;

/// The nonlinearity of the MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x · sigmoid(x)`.
    Silu,
    /// The Gaussian error linear unit, by its approximation with tanh.
    GeluTanh,
}

impl Activation {
    pub(super) fn read(keys: &Keys<'_>, family: &Family) -> Result<Self, CoreError> {
        let name = keys.get(family.activation_key);
        match name.map_or(Some(family.default_activation), Value::as_str) {
            Some("silu" | "swish") => Ok(Self::Silu),
            // Three names of the same approximation.
            Some("gelu_pytorch_tanh" | "gelu_new" | "gelu_fast") => Ok(Self::GeluTanh),
            _ => Err(CoreError::Unsupported {
                feature: family.activation_key,
                found: name.map(Value::to_string).unwrap_or_default(),
                supported: "silu, gelu_pytorch_tanh".into(),
            }),
        }
    }

    /// Its name in config.json.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Silu => "silu",
            Self::GeluTanh => "gelu_pytorch_tanh",
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

    pub(super) fn read(keys: &Keys<'_>, family: &Family, num_layers: usize) -> Result<Option<Self>, CoreError> {
        let size = || match keys.is_null("sliding_window") {
            true => Ok(None),
            false => Ok(keys.tokens("sliding_window")?.or(family.defaults.sliding_window)),
        };
        let (size, layers) = match family.window {
            WindowRule::Never => return Ok(None),
            WindowRule::All => (size()?, WindowLayers::All),
            WindowRule::Alternate => (size()?, layer_types(keys, num_layers)?.unwrap_or(WindowLayers::Even)),
            WindowRule::Switched => {
                let size = if keys.flag("use_sliding_window")? {
                    size()?
                } else {
                    None
                };
                let layers = match layer_types(keys, num_layers)? {
                    Some(listed) => listed,
                    // Without a window no layer has one.
                    None if size.is_none() => return Ok(None),
                    None => {
                        let first = keys.layers("max_window_layers")?;
                        WindowLayers::From(first.unwrap_or(family.defaults.max_window_layers))
                    }
                };
                (size, layers)
            }
        };
        let window = Self {
            size: size.unwrap_or(0),
            layers,
        };
        let slides = (0..num_layers).any(|layer| window.covers(layer));
        match (size, &window.layers) {
            (Some(_), _) if slides => Ok(Some(window)),
            (None, WindowLayers::Listed(_)) if slides => Err(CoreError::config(
                "layer_types",
                "lists sliding_attention, but sliding_window and use_sliding_window give no window; set both, or list \
                 full_attention",
            )),
            (None, WindowLayers::Even) => Err(CoreError::config(
                "sliding_window",
                "is null, but every second layer of this family has a window; write its number of tokens",
            )),
            _ => Ok(None),
        }
    }
}

/// The layers that slide, if config.json has a list of all layers.
fn layer_types(keys: &Keys<'_>, num_layers: usize) -> Result<Option<WindowLayers>, CoreError> {
    let Some(value) = keys.get("layer_types") else {
        return Ok(None);
    };
    let kinds = value.as_array().filter(|list| list.len() == num_layers);
    let kinds = kinds.ok_or_else(|| CoreError::config("layer_types", "is not a list with one entry for each layer"))?;
    let slides = |kind: &Value| match kind.as_str() {
        // The second name is that of older files.
        Some("full_attention" | "attention") => Ok(false),
        Some("sliding_attention") => Ok(true),
        _ => Err(CoreError::Unsupported {
            feature: "layer_types",
            found: kind.to_string(),
            supported: "full_attention, sliding_attention".into(),
        }),
    };
    let slides: Vec<bool> = kinds.iter().map(slides).collect::<Result<_, _>>()?;
    Ok(Some(WindowLayers::Listed(slides)))
}

/// A mixture of experts: the best few by a softmax over all, their shares normalised to sum to 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertConfig {
    /// Number of experts.
    pub count: usize,
    /// Experts that a token goes through.
    pub per_token: usize,
}

/// Far beyond any model, and a layer's tensors can still be listed.
const MOST_EXPERTS: usize = 1 << 12;

impl ExpertConfig {
    pub(super) fn read(keys: &Keys<'_>, family: &Family) -> Result<Option<Self>, CoreError> {
        if family.feed_forward == FeedForward::Dense {
            return Ok(None);
        }
        // transformers takes the first name for the second.
        let count = match keys.optional_size("num_experts")? {
            Some(count) => Some(count),
            None => keys.optional_size("num_local_experts")?,
        };
        let per_token = keys.optional_size("num_experts_per_tok")?;
        let experts = Self {
            count: count.unwrap_or(family.defaults.num_local_experts),
            per_token: per_token.unwrap_or(family.defaults.num_experts_per_tok),
        };
        if experts.count > MOST_EXPERTS {
            let problem = format!("{} is more than {MOST_EXPERTS}", experts.count);
            return Err(CoreError::config("num_local_experts", problem));
        }
        if experts.per_token > experts.count {
            let problem = format!("{} exceeds num_local_experts {}", experts.per_token, experts.count);
            return Err(CoreError::config("num_experts_per_tok", problem));
        }
        Ok(Some(experts))
    }
}

/// Layers that predict further tokens: grouped attention in any case, carried over and never run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MtpConfig {
    /// Their number.
    pub layers: usize,
    /// Key heads of their attention.
    pub num_key_value_heads: usize,
    /// Width of their heads.
    pub head_dim: usize,
}
