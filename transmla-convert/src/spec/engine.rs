//! What the programs that run converted models ask of one, as far as they differ: `docs/engines.md` has the sources.

use transmla_core::config::LatentStyle;

use crate::spec::error::ConvertError;
use crate::spec::options::{Engine, FileFormat};

/// Latent and rotary key that every kernel is made for; those in Triton take them from the configuration.
pub(crate) const COMMON_SHAPE: (usize, usize) = (512, 64);

/// The file of a model in GGUF, in its folder.
pub const GGUF_FILE: &str = "model.gguf";

/// Layers that mlx-lm loads: it drops the tensors of the next, which in DeepSeek-V3 predicts further tokens.
const MLX_LAYERS: usize = 61;

impl Engine {
    /// Whether its DeepSeek code has biases on down-projections and output (`attention_bias`).
    pub(crate) fn has_biases(self) -> bool {
        matches!(self, Self::Transformers | Self::Mlx | Self::MistralRs)
    }

    /// Whether its DeepSeek code computes every scaling of RoPE.
    pub(crate) fn scales_rope(self) -> bool {
        matches!(self, Self::Transformers | Self::Mlx)
    }

    /// Whether it runs a model that caches the scales of its keys' norms.
    ///
    /// # Errors
    /// [`ConvertError::Engine`], but for transformers.
    pub(crate) fn check_key_scales(self) -> Result<(), ConvertError> {
        match self {
            Self::Transformers => Ok(()),
            _ => Err(ConvertError::Engine {
                engine: self,
                problem: "its attention has no factor of a token's scores, which the scale of a kept key norm is (key_norm = \"exact\")".into(),
                advice: "key_norm = \"regression\" does without, and target = \"transformers\" runs it".into(),
            }),
        }
    }

    /// Whether it runs a model whose heads are in groups with a latent each, or whose latents are tied.
    ///
    /// # Errors
    /// [`ConvertError::Engine`], but for transformers.
    pub(crate) fn check_latent_groups(self) -> Result<(), ConvertError> {
        match self {
            Self::Transformers => Ok(()),
            _ => Err(ConvertError::Engine {
                engine: self,
                problem: "its latent attention has one latent for all heads, and this model's are of groups (`latent_groups`) or tied (`tied`)".into(),
                advice: "leave both out, or take target = \"transformers\", which runs it in the family's own class".into(),
            }),
        }
    }

    /// Whether it runs a model of so many layers that is written so; `obstacle` is what keeps the model from the stock form.
    ///
    /// # Errors
    /// [`ConvertError::Engine`] with what is in the way and what to do.
    pub(crate) fn check(
        self,
        format: FileFormat,
        style: LatentStyle,
        layers: usize,
        obstacle: Option<&str>,
    ) -> Result<(), ConvertError> {
        let fail = |problem: &str, advice: &str| {
            Err(ConvertError::Engine {
                engine: self,
                problem: problem.into(),
                advice: advice.into(),
            })
        };
        if format == FileFormat::Gguf && self != Self::LlamaCpp {
            return fail("it does not read GGUF", "leave format = \"gguf\" out");
        }
        if self == Self::Mlx && layers > MLX_LAYERS {
            return fail(
                "mlx-lm drops the tensors of layer 61 while loading (model.layers.61), which in DeepSeek-V3 predicts further tokens",
                "it loads models of up to 61 layers; target = \"transformers\" has no such limit",
            );
        }
        // vLLM has a plugin for the families' classes, `python/transmla-vllm`.
        let runs_families = matches!(self, Self::Transformers | Self::Vllm);
        if style == LatentStyle::Family && !runs_families {
            return fail(
                obstacle.unwrap_or("a family's own class is for transformers and vLLM alone (style = \"family\")"),
                "target = \"transformers\" runs it, in the family's own class if need be, and target = \"vllm\" with a plugin",
            );
        }
        Ok(())
    }
}
