//! What of a model a conversion keeps exactly, and what stock DeepSeek code can express.

use transmla_core::config::{Activation, NormPlacement, NormWeight, QueryKeyNorm, RopeScaling};
use transmla_core::{GroupedConfig, ModelConfig};

use crate::spec::error::ConvertError;
use crate::spec::hint::Hint;
use crate::spec::options::{Engine, FileFormat, KeyNorm};
use crate::spec::recipe::Recipe;

/// What a latent model cannot have exactly even with every rank and position kept; nothing for most families.
///
/// "Exact" is about the form: whatever a smaller cache leaves out comes on top.
pub fn approximation(source: &ModelConfig, key_norm: KeyNorm) -> Option<&'static str> {
    (source.family.qk_norm.is_there() && key_norm == KeyNorm::Regression).then_some(
        "each key's norm depends on its token, which no linear latent can express: keys are fitted by regression, and the \
         loss is reported; queries keep their norm (key_norm = \"exact\" keeps that of keys as well)",
    )
}

impl KeyNorm {
    /// What a recipe asks for, or for one that leaves it open: the exact form, unless the program that is to run the model has none.
    pub fn chosen(recipe: &Recipe, source: &ModelConfig) -> Self {
        recipe.key_norm.unwrap_or_else(|| {
            let keeps = recipe.engine.is_none_or(|engine| engine.check_key_scales().is_ok());
            match source.family.qk_norm.is_there() && keeps {
                true => Self::Exact,
                false => Self::Regression,
            }
        })
    }

    /// Numbers of each token and layer that it adds to a cache: the scales of a model's normalised keys, if they are kept.
    pub fn scales(self, source: &ModelConfig) -> usize {
        let heads = source.grouped().map_or(0, |grouped| grouped.num_key_value_heads);
        match self {
            Self::Exact => source.family.qk_norm.scales(heads),
            Self::Regression => 0,
        }
    }
}

/// Scales of each token's key norm that are cached, one for each key head or one for all.
///
/// # Errors
/// [`ConvertError::Option`] if the model has no norms to keep.
pub(crate) fn kept_norms(source: &ModelConfig, key_norm: KeyNorm) -> Result<Option<usize>, ConvertError> {
    match key_norm {
        KeyNorm::Regression => Ok(None),
        KeyNorm::Exact if source.family.qk_norm.is_there() => Ok(Some(key_norm.scales(source))),
        KeyNorm::Exact => Err(ConvertError::Option(Hint {
            field: "key_norm",
            found: "exact".into(),
            allowed: "the model does not normalise its keys, which are exact in form without it".into(),
            suggestion: "regression".into(),
        })),
    }
}

/// Width of the keys that one scale of a norm is for, where they are those of all heads.
pub(crate) fn shared_norm_width(source: &ModelConfig, grouped: &GroupedConfig) -> Option<usize> {
    (source.family.qk_norm == QueryKeyNorm::AllHeads).then(|| grouped.key_width())
}

/// Why stock `DeepseekV3ForCausalLM` code cannot run this model once it is converted; where engines differ, that of the
/// program in the recipe, or of every program if they name none.
///
/// Biases are the exception: without a program it is transformers that counts, and the others refuse such a model by name.
pub fn stock_obstacle(source: &ModelConfig, recipe: &Recipe) -> Option<String> {
    obstacle(source, recipe, recipe.method.fits_frequencies())
}

/// Why a conversion that is not told a form takes the family's own: [`stock_obstacle`], and slots of a scaled RoPE that only a fit
/// could make unscaled, which is for those who ask for it.
pub fn auto_obstacle(source: &ModelConfig, recipe: &Recipe) -> Option<String> {
    obstacle(source, recipe, false)
}

/// [`stock_obstacle`] where slots may or may not be fitted to the frequencies of an unscaled RoPE.
fn obstacle(source: &ModelConfig, recipe: &Recipe, fitted: bool) -> Option<String> {
    let biases = source
        .grouped()
        .is_some_and(|grouped| grouped.qkv_bias || grouped.output_bias);
    let engine = match recipe.file_format() {
        FileFormat::Gguf => Some(Engine::LlamaCpp),
        FileFormat::Safetensors => recipe.engine,
    };
    let has_biases = engine.is_none_or(Engine::has_biases);
    let family = source.family;
    let scalings = || source.rope.kinds().iter().map(|rope| rope.scaling);
    let reason = if recipe.tied {
        "a latent that is its heads' value and key as it is (tied = true) has no kv_b_proj, which stock DeepSeek code wants"
    } else if recipe.latent_groups.is_some_and(|groups| groups > 1) {
        "the model's heads are in groups with a latent each (`latent_groups`), and stock DeepSeek code has one latent for all"
    } else if source.experts.is_some() {
        "the model's experts are chosen by a softmax, DeepSeek-V3's by a sigmoid"
    } else if family.norm_placement != NormPlacement::Before || family.norm_weight != NormWeight::Plain {
        match source.score_softcap.or(source.logit_softcap) {
            Some(_) => "the model has norms behind attention and MLP and soft-caps, which stock DeepSeek code has not",
            None if family.norm_placement == NormPlacement::After => {
                "the model has its norms behind attention and MLP alone, where stock DeepSeek code has none"
            }
            None => "the model has norms behind attention and MLP, which stock DeepSeek code has not",
        }
    } else if family.qk_norm.is_there() {
        "the model normalises the queries of each head, which stock DeepSeek code does not"
    } else if source.window.is_some() {
        "the model has sliding-window attention, which stock DeepSeek code has not"
    } else if source.rope.turning().count() > 1 {
        "the model's layers turn by different RoPE frequencies, which stock DeepSeek code has once for all"
    } else if biases && !has_biases {
        "the model's attention projections have biases, which this engine's DeepSeek code has not"
    } else if biases && recipe.use_qkv_norm {
        "the model's biases go through a query latent, which a norm of its own (use_qkv_norm = true) would change"
    } else if source.activation != Activation::Silu {
        "the model's activation is not silu"
    } else if recipe.engine == Some(Engine::Mlx)
        && scalings().any(|scaling| matches!(scaling, RopeScaling::Yarn { truncate: false, .. }))
    {
        "mlx-lm rounds the dimensions between which YaRN interpolates, and this model does not (truncate = false)"
    } else if let Some(scaling) = scalings().find(|scaling| *scaling != RopeScaling::Default)
        && !keeps_scaled_rope(recipe)
        && !fitted
    {
        return Some(format!(
            "its RoPE scaling ({}) is not in every engine's DeepSeek code; target = \"transformers\" keeps it, and style \
             = \"deepseek-v3\" with method = \"coherent\" fits its slots to the unscaled frequencies",
            scaling.rope_type()
        ));
    } else {
        return None;
    };
    Some(reason.into())
}

/// Whether the stock form keeps the scaling of RoPE: transformers and mlx-lm compute every kind, other engines YaRN at most.
pub(crate) fn keeps_scaled_rope(recipe: &Recipe) -> bool {
    recipe.engine.is_some_and(Engine::scales_rope) && recipe.file_format() == FileFormat::Safetensors
}
