//! The plan of a conversion, from config.json and the checkpoint's headers alone.

use transmla_core::config::{LatentForm, LatentStyle};
use transmla_core::model::{attention_tensors, carried_tensors, layer_prefix, model_tensors};
use transmla_core::{AttentionConfig, GroupedConfig, LatentConfig, ModelConfig, RawConfig, TensorSpec};
use transmla_rope::HeadShape;

use crate::spec::budget::default_shapes;
use crate::spec::error::ConvertError;
use crate::spec::groups::Groups;
use crate::spec::options::{Engine, FileFormat, KeyNorm, Style};
use crate::spec::recipe::Recipe;
use crate::spec::shapes::{check_ranks, check_rope};
use crate::spec::support::{auto_obstacle, keeps_scaled_rope, kept_norms, shared_norm_width, stock_obstacle};

/// Epsilon of all norms of a model in stock DeepSeek form: transformers fixes that of the latent norms, vLLM and
/// llama.cpp take `rms_norm_eps` for them, so both must be this.
pub(crate) const STOCK_EPS: f64 = 1e-6;

/// A conversion that is known to fit: shapes, tensors to write, cache sizes.
#[derive(Debug, Clone)]
pub struct Plan {
    recipe: Recipe,
    source: ModelConfig,
    grouped: GroupedConfig,
    converted: ModelConfig,
    form: LatentForm,
    tensors: Vec<TensorSpec>,
    freqfolds: Vec<usize>,
    obstacle: Option<String>,
}

impl Plan {
    /// Checks the choices of a recipe against a model and derives everything that follows from them.
    ///
    /// # Errors
    /// [`ConvertError::Option`] with the allowed range and a good value, [`ConvertError::AlreadyLatent`],
    /// [`ConvertError::Style`], [`ConvertError::Engine`].
    pub fn new(source: &ModelConfig, recipe: &Recipe) -> Result<Self, ConvertError> {
        let grouped = *source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
            model_type: source.model_type.clone(),
        })?;
        let key_norm = KeyNorm::chosen(recipe, source);
        let key_norm_heads = kept_norms(source, key_norm)?;
        let beside = key_norm_heads.unwrap_or(0);
        let groups = Groups::of(source, &grouped, recipe)?;
        let one = groups.source(source);
        let of_one = *one.grouped().unwrap_or(&grouped);
        let widths = default_shapes(&one, recipe.engine, groups.tied_widths(&grouped, recipe), beside)?;
        let recipe = &Recipe {
            latent_groups: (groups.count > 1).then_some(groups.count),
            qk_mqa_dim: Some(widths.0),
            kv_lora_rank: Some(widths.1),
            key_norm: recipe.key_norm.or(source.family.qk_norm.is_there().then_some(key_norm)),
            ..recipe.clone()
        };
        let freqfolds = check_rope(&one, &of_one, recipe, widths.0)?;
        check_ranks(&one, &of_one, recipe, widths, source.num_attention_heads)?;
        let (style, obstacle) = choose_style(source, recipe)?;
        let stock = style == LatentStyle::DeepseekV3;
        let eps = if stock { STOCK_EPS } else { source.rms_norm_eps };
        let q_lora_rank = match stock && grouped.qkv_bias {
            true => Some(query_rank(recipe.q_lora_rank.unwrap_or(source.hidden_size))),
            false => recipe.q_lora_rank,
        };
        let head_dim = if groups.tied { widths.1 } else { grouped.head_dim };
        let latent = LatentConfig {
            q_lora_rank,
            latent_groups: groups.count,
            tied: groups.tied,
            kv_lora_rank: widths.1,
            qk_nope_head_dim: head_dim,
            qk_rope_head_dim: widths.0,
            v_head_dim: head_dim,
            latent_norm_eps: (stock || recipe.use_qkv_norm).then_some(eps),
            biases: grouped.qkv_bias || grouped.output_bias,
            key_norm_heads,
            key_norm_width: key_norm_heads.and(shared_norm_width(source, &grouped)),
        };
        let form = LatentForm {
            style,
            rms_norm_eps: eps,
            dtype: recipe.dtype,
            scaled_rope: keeps_scaled_rope(recipe),
        };
        let converted = source.converted(&latent, &form);
        let mut tensors = model_tensors(&converted);
        for index in 0..converted.num_hidden_layers {
            tensors.extend(bias_tensors(&converted, &latent, &grouped, stock, index));
        }
        if !stock {
            tensors.extend(carried_tensors(source));
        }
        let engine = match recipe.file_format() {
            FileFormat::Gguf => recipe.engine.or(Some(Engine::LlamaCpp)),
            FileFormat::Safetensors => recipe.engine,
        };
        if let Some(engine) = engine {
            engine.check(
                recipe.file_format(),
                style,
                source.num_hidden_layers,
                obstacle.as_deref(),
            )?;
            if key_norm_heads.is_some() {
                engine.check_key_scales()?;
            }
            if latent.is_grouped() {
                engine.check_latent_groups()?;
            }
        }
        Ok(Self {
            recipe: recipe.clone(),
            source: source.clone(),
            grouped,
            converted,
            form,
            tensors,
            freqfolds,
            obstacle,
        })
    }

    /// The choices that it was made from, with the widths that were left open.
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// What becomes of the norm of keys; regression, which is nothing, where there is none.
    pub fn key_norm(&self) -> KeyNorm {
        KeyNorm::chosen(&self.recipe, &self.source)
    }

    /// Completes its recipe by what has no part in the plan: lengths and numbers of texts.
    pub(crate) fn complete(&mut self, change: &dyn Fn(&mut Recipe)) {
        change(&mut self.recipe);
    }

    /// Configuration of the source.
    pub fn source(&self) -> &ModelConfig {
        &self.source
    }

    /// Shapes of the source's attention.
    pub fn grouped(&self) -> &GroupedConfig {
        &self.grouped
    }

    /// Configuration of the converted model.
    pub fn converted(&self) -> &ModelConfig {
        &self.converted
    }

    /// Shapes of the latent attention.
    pub fn latent(&self) -> &LatentConfig {
        match &self.converted.attention {
            AttentionConfig::Latent(latent) => latent,
            AttentionConfig::Grouped(_) => unreachable!("a converted configuration has latent attention"),
        }
    }

    /// Tensors to write, in order.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The frequency foldings to choose from; one unless `freqfold` is `auto`.
    pub fn freqfolds(&self) -> &[usize] {
        &self.freqfolds
    }

    /// The form that is written.
    pub fn style(&self) -> LatentStyle {
        self.form.style
    }

    /// What keeps [`Style::Auto`] from the stock form, if anything does.
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// The contents of the converted model's config.json.
    pub(crate) fn config_json(&self) -> RawConfig {
        self.source.latent_json(self.latent(), &self.form)
    }

    /// Configuration and tensors of one layer's attention as it is solved: without latent norms, and without a query latent
    /// that only biases ask for.
    pub(crate) fn solved_attention(&self, layer: usize) -> (ModelConfig, LatentConfig, Vec<TensorSpec>) {
        let latent = LatentConfig {
            q_lora_rank: self.recipe.q_lora_rank,
            latent_norm_eps: None,
            ..self.latent().clone()
        };
        let mut config = self.converted.clone();
        config.attention = AttentionConfig::Latent(latent.clone());
        // What is solved is the decoder's, which includes it.
        config.residual_multiplier = 1.0;
        let mut tensors = attention_tensors(&config, layer);
        tensors.extend(bias_tensors(&config, &latent, &self.grouped, false, layer));
        (config, latent, tensors)
    }

    /// The plan of one group of heads as a model of its own, untied: what the closed form of each group goes by. Of one latent for all
    /// heads it is this plan. It has this plan's recipe and tensors.
    pub(crate) fn of_group(&self) -> Self {
        let groups = Groups {
            count: self.latent().latent_groups,
            tied: false,
        };
        let source = groups.source(&self.source);
        let latent = LatentConfig {
            latent_groups: 1,
            tied: false,
            qk_nope_head_dim: self.grouped.head_dim,
            v_head_dim: self.grouped.head_dim,
            ..self.latent().clone()
        };
        Self {
            grouped: *source.grouped().unwrap_or(&self.grouped),
            converted: source.converted(&latent, &self.form),
            source,
            ..self.clone()
        }
    }

    /// Heads as the rope crate counts them.
    pub(crate) fn head_shape(&self) -> HeadShape {
        let grouped = self.grouped;
        HeadShape {
            query_heads: self.source.num_attention_heads,
            key_heads: grouped.num_key_value_heads,
            head_dim: grouped.head_dim,
        }
    }

    /// What a layer of the source multiplies products of queries and keys by, the attention factor of its RoPE included.
    pub(crate) fn source_scale(&self, layer: usize) -> f64 {
        self.source.score_scale * self.source.rope.of(layer).attention_factor().powi(2)
    }

    /// DeepSeek divides scores by `sqrt(d + d_r)` where the source mostly divides by `sqrt(d)`: queries carry the quotient.
    pub(crate) fn query_scale(&self, layer: usize) -> f64 {
        self.source_scale(layer) / self.converted.score_scale
    }

    /// What rotary queries are multiplied by beyond that: the converted model's own attention factor comes on top of them.
    pub(crate) fn rope_share(&self, layer: usize) -> f64 {
        self.converted.rope.of(layer).attention_factor().powi(-2)
    }

    /// Numbers per token and layer in the KV cache, before and after.
    pub fn cache_numbers(&self) -> (usize, usize) {
        (
            self.source.attention.cache_numbers(),
            self.converted.attention.cache_numbers(),
        )
    }

    /// Bytes of the weights to write.
    pub fn output_bytes(&self) -> u64 {
        let numbers: usize = self.tensors.iter().map(TensorSpec::elements).sum();
        (numbers * self.recipe.dtype.bytes()) as u64
    }

    /// Whether the residual stream is rescaled, and by what: `sqrt(eps' / eps)` makes norms with one epsilon do the
    /// work of the other.
    fn residual_scale(&self) -> f64 {
        (self.converted.rms_norm_eps / self.source.rms_norm_eps).sqrt()
    }

    /// What tensors are multiplied by where the residual stream is rescaled, or a factor of the source has no place in the
    /// converted model.
    pub(crate) fn tensor_factors(&self) -> TensorFactors {
        let (scale, source, converted) = (self.residual_scale(), &self.source, &self.converted);
        TensorFactors {
            embedding: scale * source.embedding_scale / converted.embedding_scale,
            // The decoder's own has the source's factor in it already.
            attention_output: scale / converted.residual_multiplier,
            feed_forward_output: scale * source.residual_multiplier / converted.residual_multiplier,
            // A tied head is the rescaled embedding; the final norm takes the factor back.
            final_norm: if converted.tie_word_embeddings {
                1.0 / scale
            } else {
                1.0
            },
            head: converted.logit_divisor / source.logit_divisor,
        }
    }

    /// Whether a layer of the source has positions. Where it has none all of its keys are in the latent.
    pub(crate) fn has_positions(&self, layer: usize) -> bool {
        self.source.rope.of(layer).has_positions()
    }
}

/// What tensors of the source are multiplied by when they are written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct TensorFactors {
    pub embedding: f64,
    /// Of the decoder's `o_proj`.
    pub attention_output: f64,
    pub feed_forward_output: f64,
    pub final_norm: f64,
    pub head: f64,
}

/// Width of a query latent with one more entry, which biases go through: a multiple of 8, which matrix units want.
pub(crate) fn query_rank(rank: usize) -> usize {
    (rank + 1).next_multiple_of(8)
}

/// The form to write, and what keeps `auto` from the stock one.
fn choose_style(source: &ModelConfig, recipe: &Recipe) -> Result<(LatentStyle, Option<String>), ConvertError> {
    if recipe.style == Style::Family {
        return Ok((LatentStyle::Family, None));
    }
    let obstacle = match recipe.style {
        Style::Auto => auto_obstacle(source, recipe),
        _ => stock_obstacle(source, recipe),
    };
    match (obstacle, recipe.style) {
        (None, _) => Ok((LatentStyle::DeepseekV3, None)),
        (Some(obstacle), Style::DeepseekV3) => Err(ConvertError::Style { obstacle }),
        (obstacle, _) => Ok((LatentStyle::Family, obstacle)),
    }
}

/// The biases of one layer's attention: those of the source where they are, or on the down-projections, where alone stock
/// code has them.
fn bias_tensors(
    config: &ModelConfig,
    latent: &LatentConfig,
    grouped: &GroupedConfig,
    stock: bool,
    layer: usize,
) -> Vec<TensorSpec> {
    let keys = latent.down_rows();
    let queries = config.query_rows(latent);
    let query = match latent.q_lora_rank {
        Some(rank) if stock => ("q_a_proj", rank),
        Some(_) => ("q_b_proj", queries),
        None => ("q_proj", queries),
    };
    let prefix = format!("{}.self_attn", layer_prefix(layer));
    let spec = |(name, rows): (&str, usize)| TensorSpec::new(format!("{prefix}.{name}.bias"), [rows]);
    let mut tensors = Vec::new();
    if grouped.qkv_bias {
        tensors.extend([query, ("kv_a_proj_with_mqa", keys)].map(spec));
        tensors.extend(latent.key_norm_heads.map(|_| spec(("k_proj", grouped.key_width()))));
    } else if stock && grouped.output_bias {
        // The stock class has all of them or none.
        tensors.extend(latent.q_lora_rank.map(|rank| spec(("q_a_proj", rank))));
        tensors.push(spec(("kv_a_proj_with_mqa", keys)));
    }
    if grouped.output_bias || (stock && grouped.qkv_bias) {
        tensors.push(spec(("o_proj", config.hidden_size)));
    }
    tensors
}
