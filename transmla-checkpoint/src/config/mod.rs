//! `config.json` of every supported family, and of latent attention models.

pub(crate) mod attention;
mod attention_parameters;
mod converted;
mod defaults;
pub(crate) mod expert_rule;
mod experts;
pub(crate) mod family;
mod features;
mod form;
pub(crate) mod grouped;
mod headers;
mod json;
pub(crate) mod latent;
mod latent_json;
mod layer_ropes;
pub(crate) mod model;
mod mtp;
mod multipliers;
mod parse;
pub(crate) mod raw;
mod refused;
mod rope;
mod scaling;
mod settled;

pub use attention::AttentionConfig;
pub use attention_parameters::AttentionParameters;
pub use defaults::Defaults;
pub use expert_rule::{ExpertRule, MlpNames};
pub use experts::ExpertConfig;
pub use family::{
    BiasRule, FAMILIES, Family, FeedForward, Multipliers, NormPlacement, NormWeight, QueryKeyNorm, RopeRule, SoftCaps,
    WindowRule,
};
pub use features::{Activation, SlidingWindow, WindowLayers};
pub use grouped::GroupedConfig;
pub use latent::LatentConfig;
pub use latent_json::{
    CACHE_KEYS, CONFIGURATION_MODULE, LatentForm, LatentStyle, MODELLING_MODULE, TRANSFORMERS_ARCHITECTURE,
    stock_architecture,
};
pub use layer_ropes::LayerRopes;
pub use model::ModelConfig;
pub use mtp::MtpConfig;
pub use raw::RawConfig;
pub use rope::{RopeConfig, RopeLayout};
pub use scaling::RopeScaling;
