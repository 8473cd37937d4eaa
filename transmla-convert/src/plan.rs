//! The plan of a conversion, from config.json and the checkpoint's headers alone.

use serde_json::{Map, Value};
use transmla_core::config::{LatentForm, LatentStyle};
use transmla_core::model::{attention_tensors, carried_tensors, layer_prefix, model_tensors, residual_tensors};
use transmla_core::{AttentionConfig, GroupedConfig, LatentConfig, ModelConfig, TensorSpec};
use transmla_rope::{FoldSpec, HeadShape};

use crate::constant_entry::query_rank;
use crate::loss_gradients::gradient_bytes;
use crate::support::{auto_obstacle, keeps_scaled_rope, stock_obstacle};
use crate::{ConvertError, ConvertOptions, Engine, FileFormat, FreqFold, Method, Style};

/// Tokens whose logits the gradients of the coherent method are taken for at once.
const LOGIT_ROWS: u64 = 256;

/// Epsilon of all norms of a model in stock DeepSeek form: transformers fixes that of the latent norms, vLLM and
/// llama.cpp take `rms_norm_eps` for them, so both must be this.
pub(crate) const STOCK_EPS: f64 = 1e-6;

/// A conversion that is known to fit: shapes, tensors to write, cache sizes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The choices it was made from.
    pub options: ConvertOptions,
    /// Configuration of the source.
    pub source: ModelConfig,
    /// Shapes of the source's attention.
    pub grouped: GroupedConfig,
    /// config.json to write.
    pub target_json: Map<String, Value>,
    /// The same, as the decoder reads it.
    pub target: ModelConfig,
    /// Shapes of the latent attention.
    pub latent: LatentConfig,
    /// Tensors to write, in order.
    pub tensors: Vec<TensorSpec>,
    /// The foldings to choose from; one unless freqfold is `auto`.
    pub freqfolds: Vec<usize>,
    /// The form that is written.
    pub style: LatentStyle,
    /// What keeps [`Style::Auto`] from the stock form, if anything does.
    pub obstacle: Option<String>,
}

impl Plan {
    /// Checks the choices against a model and derives everything that follows from them.
    ///
    /// # Errors
    /// [`ConvertError::Option`] with the allowed range and a good value, [`ConvertError::AlreadyLatent`],
    /// [`ConvertError::Style`], [`ConvertError::Engine`].
    pub fn new(source: &ModelConfig, options: &ConvertOptions) -> Result<Self, ConvertError> {
        let grouped = *source.grouped().ok_or_else(|| ConvertError::AlreadyLatent {
            model_type: source.model_type.clone(),
        })?;
        let freqfolds = check_rope(source, &grouped, options)?;
        check_ranks(source, &grouped, options)?;
        let (style, obstacle) = choose_style(source, options)?;
        let stock = style == LatentStyle::DeepseekV3;
        let eps = if stock { STOCK_EPS } else { source.rms_norm_eps };
        let q_lora_rank = match stock && grouped.qkv_bias {
            true => Some(query_rank(options.q_lora_rank.unwrap_or(source.hidden_size))),
            false => options.q_lora_rank,
        };
        let latent = LatentConfig {
            q_lora_rank,
            kv_lora_rank: options.kv_lora_rank,
            qk_nope_head_dim: grouped.head_dim,
            qk_rope_head_dim: options.qk_mqa_dim,
            v_head_dim: grouped.head_dim,
            latent_norm_eps: (stock || options.use_qkv_norm).then_some(eps),
            biases: grouped.qkv_bias || grouped.output_bias,
        };
        let form = LatentForm {
            style,
            rms_norm_eps: eps,
            dtype: options.dtype,
            scaled_rope: keeps_scaled_rope(options),
        };
        let target_json: Map<String, Value> = source.latent_json(&latent, &form).into();
        let target = ModelConfig::from_json(target_json.clone())?;
        let mut tensors = model_tensors(&target);
        for index in 0..target.num_hidden_layers {
            tensors.extend(bias_tensors(&target, &latent, &grouped, stock, index));
        }
        if !stock {
            tensors.extend(carried_tensors(source));
        }
        let plan = Self {
            options: options.clone(),
            source: source.clone(),
            grouped,
            target_json,
            target,
            latent,
            tensors,
            freqfolds,
            style,
            obstacle,
        };
        let engine = match options.format {
            FileFormat::Gguf => options.target.or(Some(Engine::LlamaCpp)),
            FileFormat::Safetensors => options.target,
        };
        engine.map_or(Ok(()), |engine| engine.check(&plan))?;
        Ok(plan)
    }

    /// Configuration and tensors of one layer's attention as it is solved: without latent norms, and without a query latent
    /// that only biases ask for.
    pub(crate) fn solved_attention(&self, layer: usize) -> (ModelConfig, LatentConfig, Vec<TensorSpec>) {
        let latent = LatentConfig {
            q_lora_rank: self.options.q_lora_rank,
            latent_norm_eps: None,
            ..self.latent.clone()
        };
        let mut config = self.target.clone();
        config.attention = AttentionConfig::Latent(latent.clone());
        let mut tensors = attention_tensors(&config, layer);
        tensors.extend(bias_tensors(&config, &latent, &self.grouped, false, layer));
        (config, latent, tensors)
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

    /// What the source multiplies products of queries and keys by, the attention factor of its RoPE included.
    pub(crate) fn source_scale(&self) -> f64 {
        self.source.score_scale * self.source.rope.attention_factor().powi(2)
    }

    /// DeepSeek divides scores by `sqrt(d + d_r)` where the source mostly divides by `sqrt(d)`: queries carry the quotient.
    pub(crate) fn query_scale(&self) -> f64 {
        self.source_scale() / self.target.score_scale
    }

    /// What rotary queries are multiplied by beyond that: the converted model's own attention factor comes on top of them.
    pub(crate) fn rope_share(&self) -> f64 {
        self.target.rope.attention_factor().powi(-2)
    }

    /// Numbers per token and layer in the KV cache, before and after.
    pub fn cache_numbers(&self) -> (usize, usize) {
        (
            self.source.attention.cache_numbers(),
            self.target.attention.cache_numbers(),
        )
    }

    /// Bytes of the weights to write.
    pub fn output_bytes(&self) -> u64 {
        let numbers: usize = self.tensors.iter().map(TensorSpec::elements).sum();
        (numbers * self.options.dtype.bytes()) as u64
    }

    /// Whether the residual stream is rescaled, and by what: `sqrt(eps' / eps)` makes norms with one epsilon do the
    /// work of the other.
    pub(crate) fn residual_scale(&self) -> f64 {
        (self.target.rms_norm_eps / self.source.rms_norm_eps).sqrt()
    }

    /// Estimated peak of memory in bytes for `samples` calibration sequences of `tokens` tokens.
    ///
    /// Hidden states of all tokens, one layer in f32, a batch's activations, the layer's attention and what its
    /// factorisation works with in f64; the coherent method adds the teacher's states, the inputs, outputs and targets of one
    /// layer and gradients of all layers, which need the output head while they are taken.
    pub fn peak_bytes(&self, samples: usize, tokens: usize) -> u64 {
        let grouped = self.grouped;
        let (hidden, keys) = (self.source.hidden_size as u64, grouped.key_width() as u64);
        let heads = self.source.num_attention_heads as u64;
        let queries = heads * grouped.head_dim as u64;
        let rope_queries = heads * self.latent.qk_rope_head_dim as u64;
        let elements = |specs: Vec<TensorSpec>| specs.iter().map(|spec| spec.elements() as u64).sum::<u64>();
        let layer = elements(residual_tensors(&self.source, 0)) + elements(attention_tensors(&self.source, 0));
        let calibration_tokens = samples.saturating_mul(tokens);
        let states = calibration_tokens as u64 * hidden * 4;
        let batch = (self.options.cal_batch_size.min(samples) * tokens) as u64;
        let activations = batch * 4 * (3 * self.source.intermediate_size as u64 + 2 * queries + 2 * hidden);
        let rows = 2 * queries + rope_queries + 2 * keys;
        let joint = 2 * keys;
        // Second moment and its products; attention weights before and after; the joint moment and its eigenvectors; one
        // up-projection of all keys for each query head.
        let factorisation = 8 * (3 * hidden * hidden + hidden * rows + 4 * joint * joint + 2 * queries * keys);
        // Behind it the second moment is still there; that of the attended values with its factor, and what is solved for.
        let regression = 8 * (2 * hidden * hidden + 2 * queries * queries + 2 * queries * hidden);
        let host = match self.options.method {
            Method::Transmla => factorisation,
            Method::Coherent => factorisation.max(regression),
        };
        let fitted_keys = match self.source.family.qk_norm && self.options.method == Method::Transmla {
            true => 4 * keys * hidden * self.source.num_hidden_layers as u64,
            false => 0,
        };
        let main = 4 * layer + states + activations + host + fitted_keys;
        match self.options.method {
            Method::Transmla => main,
            Method::Coherent => {
                let layers = self.source.num_hidden_layers as u64;
                let gradients = gradient_bytes(calibration_tokens) * hidden * layers;
                let head = 4 * self.source.vocab_size as u64 * hidden;
                // The residual stream before every layer, and a layer with its gradient and recorded activations, or the
                // head with some logits.
                let logits = 3 * LOGIT_ROWS * self.source.vocab_size as u64 * 4;
                let backwards = batch * hidden * layers * 4 + (8 * layer + 3 * activations).max(head + logits);
                // Weights, their gradient, what Adam keeps of each, and the best so far.
                let refined = match self.options.refine {
                    0 => 0,
                    _ => 6 * 4 * elements(self.solved_attention(0).2),
                };
                gradients + (main + 4 * states + refined).max(gradients + backwards)
            }
        }
    }
}

fn check_rope(
    source: &ModelConfig,
    grouped: &GroupedConfig,
    options: &ConvertOptions,
) -> Result<Vec<usize>, ConvertError> {
    let (head_dim, rope_dim) = (grouped.head_dim, options.qk_mqa_dim);
    let widths: Vec<usize> = rope_widths(head_dim);
    if !widths.contains(&rope_dim) {
        let fitting = widths.iter().rev().find(|w| **w <= rope_dim).or(widths.first());
        return Err(ConvertError::Option {
            option: "qk-mqa-dim",
            found: rope_dim.to_string(),
            allowed: format!(
                "head_dim is {head_dim}, and an even divisor of it is needed, one of {}",
                list(&widths)
            ),
            suggestion: fitting.map_or_else(|| head_dim.to_string(), usize::to_string),
        });
    }
    let collapse = head_dim / rope_dim;
    if let Some(found) = options.collapse.filter(|c| *c != collapse) {
        return Err(ConvertError::Option {
            option: "collapse",
            found: found.to_string(),
            allowed: format!("head_dim {head_dim} / qk-mqa-dim {rope_dim} = {collapse} frequencies fall on each slot"),
            suggestion: collapse.to_string(),
        });
    }
    let shape = HeadShape {
        query_heads: source.num_attention_heads,
        key_heads: grouped.num_key_value_heads,
        head_dim,
    };
    let candidates = FoldSpec::candidates(shape, rope_dim).map_err(ConvertError::rope(0))?;
    match options.freqfold {
        FreqFold::Auto => Ok(candidates),
        FreqFold::Fixed(fold) => match FoldSpec::new(shape, rope_dim, fold) {
            Ok(_) => Ok(vec![fold]),
            Err(_) => Err(ConvertError::Option {
                option: "freqfold",
                found: fold.to_string(),
                allowed: format!(
                    "it must be a multiple of collapse {collapse} and divide the {} frequencies, for example {}",
                    head_dim / 2,
                    list(&candidates)
                ),
                suggestion: "auto".into(),
            }),
        },
    }
}

fn check_ranks(source: &ModelConfig, grouped: &GroupedConfig, options: &ConvertOptions) -> Result<(), ConvertError> {
    let largest = 2 * grouped.key_width() - options.qk_mqa_dim;
    if !(1..=largest).contains(&options.kv_lora_rank) {
        // Half of the original cache is a mild start for most models.
        let half = grouped.key_width().saturating_sub(options.qk_mqa_dim);
        return Err(ConvertError::Option {
            option: "kv-lora-rank",
            found: options.kv_lora_rank.to_string(),
            allowed: format!(
                "keys and values have {} numbers per token and {} of them are the rotary key, so 1 to {largest} is possible",
                2 * grouped.key_width(),
                options.qk_mqa_dim
            ),
            suggestion: if half == 0 { largest / 2 } else { half }.max(1).to_string(),
        });
    }
    let queries = source.num_attention_heads * grouped.head_dim;
    if let Some(rank) = options.q_lora_rank.filter(|rank| !(1..=queries).contains(rank)) {
        return Err(ConvertError::Option {
            option: "q-lora-rank",
            found: rank.to_string(),
            allowed: format!("queries have {queries} numbers per token, so 1 to {queries} is possible"),
            suggestion: (queries / 2).max(1).to_string(),
        });
    }
    if !(options.balance_kv_ratio > 0.0 && options.balance_kv_ratio.is_finite()) {
        return Err(ConvertError::Option {
            option: "balance-kv-ratio",
            found: options.balance_kv_ratio.to_string(),
            allowed: "a positive number is needed".into(),
            suggestion: "1".into(),
        });
    }
    Ok(())
}

/// The form to write, and what keeps `auto` from the stock one.
fn choose_style(source: &ModelConfig, options: &ConvertOptions) -> Result<(LatentStyle, Option<String>), ConvertError> {
    if options.style == Style::Family {
        return Ok((LatentStyle::Family, None));
    }
    let obstacle = match options.style {
        Style::Auto => auto_obstacle(source, options),
        _ => stock_obstacle(source, options),
    };
    match (obstacle, options.style) {
        (None, _) => Ok((LatentStyle::DeepseekV3, None)),
        (Some(obstacle), Style::DeepseekV3) => Err(ConvertError::Style { obstacle }),
        (obstacle, _) => Ok((LatentStyle::Family, obstacle)),
    }
}

/// The widths that a shared rotary key can have: even divisors of the head's width, ascending.
pub(crate) fn rope_widths(head_dim: usize) -> Vec<usize> {
    (1..=head_dim / 2)
        .map(|half| 2 * half)
        .filter(|width| head_dim.is_multiple_of(*width))
        .collect()
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
    let keys = latent.kv_lora_rank + latent.qk_rope_head_dim;
    let queries = config.num_attention_heads * latent.query_width();
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

fn list(values: &[usize]) -> String {
    let words: Vec<String> = values.iter().map(usize::to_string).collect();
    words.join(", ")
}
