//! What a saved model must be for other programs to run it, and the function that its norms must not change.

use std::path::Path;

use burn::tensor::{Device, Tensor};
use transmla_core::checkpoint::{read_regular, read_regular_text};
use transmla_core::config::{CACHE_KEYS, RopeScaling, TRANSFORMERS_ARCHITECTURE, stock_architecture};
use transmla_core::model::attention::{Attention, QueryProjection};
use transmla_core::model::{Linear, OutputHead, RmsNorm, check_headers};
use transmla_core::{
    AttentionConfig, Checkpoint, CoreError, Decoder, DecoderLayer, LayeredModel, ModelConfig, RawConfig, TokenBatch,
    host_values,
};

use crate::output::lost_rows::lost_rows;
use crate::output::manifest::{LARGEST_RECIPE, RECIPE_FILE};
use crate::spec::error::ConvertError;
use crate::spec::plan::STOCK_EPS;
use crate::spec::recipe::Recipe;

/// Most bytes of a generation_config.json, which has some hundreds.
const LARGEST_SETTINGS: u64 = 1 << 20;

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub passed: bool,
    /// What was found.
    pub found: String,
}

/// The form of a saved model with latent attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SavedForm {
    /// Stock DeepSeek-V3, whose latent norms are the identity and so no part of the function.
    Stock,
    /// Stock DeepSeek-V3 with latent norms of its own.
    StockWithNorms,
    /// A family's own class.
    Family,
}

/// Checks a saved model's files against each other, without running it.
///
/// # Errors
/// The model has no latent attention, its tensors do not fit config.json, or a file cannot be read.
pub fn check_saved(folder: &Path, config: &ModelConfig) -> Result<(SavedForm, Vec<Check>), ConvertError> {
    let AttentionConfig::Latent(latent) = &config.attention else {
        return Err(ConvertError::NotLatent {
            model_type: config.model_type.clone(),
        });
    };
    let checkpoint = Checkpoint::open(folder)?;
    check_headers(config, &checkpoint)?;
    let mut checks = vec![Check {
        name: "tensors",
        passed: true,
        found: format!("{} as config.json has them", checkpoint.names().count()),
    }];
    checks.push(cache_check(folder, config));
    checks.push(sizes_check(config));
    let class = architecture(config);
    if config.model_type != "deepseek_v3" {
        checks.push(class_check(&class, &config.family.latent_class()));
        checks.push(code_check(folder, config));
        return Ok((SavedForm::Family, checks));
    }
    let scaling = config.rope.of(0).scaling;
    checks.push(class_check(&class, stock_architecture(latent, &scaling)));
    checks.push(Check {
        name: "epsilon",
        passed: config.rms_norm_eps == STOCK_EPS,
        found: format!(
            "rms_norm_eps {:e}; transformers gives latent norms {STOCK_EPS:e}, other engines rms_norm_eps",
            config.rms_norm_eps
        ),
    });
    // Under this name other engines refuse it, so they cannot run it wrongly.
    let transformers_alone = class == TRANSFORMERS_ARCHITECTURE;
    checks.push(Check {
        name: "RoPE",
        passed: scaling == RopeScaling::Default || transformers_alone,
        found: format!("rope_type {}; engines agree on default alone", scaling.rope_type()),
    });
    checks.push(Check {
        name: "biases",
        passed: !latent.biases || transformers_alone,
        found: format!("attention_bias {}; vLLM and SGLang have none", latent.biases),
    });
    let lost = lost_rows(config, latent, &checkpoint)?;
    checks.push(Check {
        name: "digits",
        passed: lost.is_none(),
        found: lost.unwrap_or_else(|| "the latents' rows have theirs".into()),
    });
    let recipe = read_regular_text(&folder.join(RECIPE_FILE), LARGEST_RECIPE).ok();
    let form = match recipe.and_then(|text| Recipe::from_toml(&text).ok()) {
        Some(recipe) if !recipe.use_qkv_norm => SavedForm::Stock,
        _ => SavedForm::StockWithNorms,
    };
    Ok((form, checks))
}

fn architecture(config: &ModelConfig) -> String {
    config.raw.text("/architectures/0").unwrap_or("none").to_owned()
}

fn class_check(found: &str, expected: &str) -> Check {
    Check {
        name: "class",
        passed: found == expected,
        found: match found == expected {
            true => found.to_owned(),
            false => format!("{found}; expected {expected}"),
        },
    }
}

/// Whether the modules that `auto_map` names are there.
fn code_check(folder: &Path, config: &ModelConfig) -> Check {
    let module = |key: &str| {
        let name = config.raw.text(&format!("/auto_map/{key}"))?;
        Some(format!("{}.py", name.split_once('.')?.0))
    };
    let modules = ["AutoConfig", "AutoModelForCausalLM"].map(module);
    let (passed, found) = match modules {
        [Some(configuration), Some(modelling)] => {
            let there = |file: &String| folder.join(file).is_file();
            match [&configuration, &modelling].into_iter().find(|file| !there(file)) {
                None => (true, format!("{modelling}, by trust_remote_code")),
                Some(file) => (false, format!("auto_map names {file}, which is not there")),
            }
        }
        _ => (false, "config.json has no auto_map for it".into()),
    };
    Check {
        name: "code",
        passed,
        found,
    }
}

/// Whether config.json has the sizes that other programs need, which our own decoder does without.
fn sizes_check(config: &ModelConfig) -> Check {
    let mut problems = config.notes.clone();
    let heads = config.num_attention_heads as u64;
    let size = |key: &str| config.raw.integer(key);
    if size("/num_key_value_heads").is_some_and(|count| count != heads) {
        problems.push(format!("num_key_value_heads is not the number of heads, {heads}"));
    }
    // Its class calls the width of the rotary key so.
    let rotary = config.rope.of(0).dim;
    if size("/head_dim").is_some_and(|width| width != rotary as u64) {
        problems.push(format!("head_dim is not the width of the rotary key, {rotary}"));
    }
    Check {
        name: "sizes",
        passed: problems.is_empty(),
        found: match problems.is_empty() {
            true => format!("config.json has those of the weights, {heads} heads"),
            false => problems.join("; "),
        },
    }
}

/// Whether the caches that transformers makes by these files keep what each layer sees.
fn cache_check(folder: &Path, config: &ModelConfig) -> Check {
    let text = read_regular(&folder.join("generation_config.json"), LARGEST_SETTINGS).unwrap_or_default();
    let generation = RawConfig::parse(&text).unwrap_or_default();
    let asked = [("config.json", &config.raw), ("generation_config.json", &generation)]
        .into_iter()
        .flat_map(|(file, keys)| CACHE_KEYS.iter().map(move |key| (file, *key, keys, format!("/{key}"))))
        .filter(|(.., keys, pointer)| keys.is_set(pointer))
        .find_map(|(file, key, keys, pointer)| Some((file, key, keys.json(&pointer)?)));
    let listed = config.raw.length("/layer_types").is_some();
    let size = config.raw.json("/sliding_window").filter(|size| size != "null");
    // Without a list a window is one of all layers to transformers, whatever else config.json has.
    let forgets = |layer: usize| match listed {
        true => config.raw.text(&format!("/layer_types/{layer}")) == Some("sliding_attention"),
        false => size.is_some(),
    };
    let differs = (0..config.num_hidden_layers).find(|layer| {
        let window = config.attention_parameters(*layer).window;
        forgets(*layer) != window.is_some() || window.is_some_and(|window| size != Some(window.to_string()))
    });
    let (passed, found) = match (asked, differs) {
        (Some((file, key, value)), _) => (false, format!("{file} has {key} {value}; remove it")),
        (None, Some(layer)) => (
            false,
            format!("sliding_window and layer_types are not what layer {layer} does; convert the model again"),
        ),
        (None, None) => {
            let windows = (0..config.num_hidden_layers).filter(|layer| forgets(*layer)).count();
            (
                true,
                format!("{windows} of {} layers have a window", config.num_hidden_layers),
            )
        }
    };
    Check {
        name: "caches",
        passed,
        found,
    }
}

/// A saved model without its latent norms: what the conversion computed before it was given norms that are to change
/// nothing.
#[derive(Debug, Clone, Copy)]
pub struct WithoutLatentNorms<'a>(
    /// The model as it was saved.
    pub &'a Decoder,
);

impl LayeredModel for WithoutLatentNorms<'_> {
    fn config(&self) -> &ModelConfig {
        self.0.config()
    }

    fn device(&self) -> &Device {
        self.0.device()
    }

    fn embed(&self, tokens: &TokenBatch) -> Result<Tensor<3>, CoreError> {
        self.0.embed(tokens)
    }

    fn layer(&self, index: usize) -> Result<DecoderLayer, CoreError> {
        let mut layer = self.0.layer(index)?;
        if let Attention::Latent(attention) = &mut layer.attention {
            if let Some(norm) = attention.kv_norm.take() {
                attention.kv_down = absorb(&norm, &attention.kv_down, taken_back(&norm)?);
            }
            if let QueryProjection::Lora { down, norm, .. } = &mut attention.q
                && let Some(norm) = norm.take()
            {
                *down = absorb(&norm, down, taken_back(&norm)?);
            }
        }
        Ok(layer)
    }

    fn head(&self) -> Result<OutputHead, CoreError> {
        self.0.head()
    }
}

/// What an identity norm's weight, a power of two, was divided by to take back what the norm takes away on average.
fn taken_back(norm: &RmsNorm) -> Result<f64, CoreError> {
    let weight = f64::from(host_values(norm.weight.clone())?.first().copied().unwrap_or(1.0));
    let share = weight.log2().floor().exp2() / weight;
    Ok(if share > LEAST_KEPT { share } else { 1.0 })
}

/// Least share of a latent that an identity norm leaves.
pub(crate) const LEAST_KEPT: f64 = 0.9;

/// The first rows of a projection times what a norm multiplies a latent near zero by, `w / sqrt(eps)`, and times `share`.
pub(crate) fn absorb(norm: &RmsNorm, projection: &Linear, share: f64) -> Linear {
    let (rank, rows) = (norm.weight.dims()[0], projection.weight.dims()[0]);
    let mut factors = norm.weight.clone().mul_scalar(share / norm.eps.sqrt());
    if rows > rank {
        let ones = Tensor::ones([rows - rank], &projection.weight.device());
        factors = Tensor::cat(vec![factors, ones], 0);
    }
    Linear {
        weight: projection.weight.clone() * factors.clone().unsqueeze_dim::<2>(1),
        bias: projection.bias.clone().map(|bias| bias * factors),
    }
}
