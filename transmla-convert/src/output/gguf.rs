//! A saved model in stock form as one GGUF file, for llama.cpp's `deepseek2`.

mod about;
mod attention;
mod entries;
mod quantization;
mod survey;
mod vocabulary;

use std::collections::HashMap;
use std::path::Path;

use burn::tensor::Device;
use transmla_core::checkpoint::{GgufTensor, GgufValue, GgufWriter};
use transmla_core::config::RopeScaling;
use transmla_core::{
    AttentionConfig, Checkpoint, CheckpointError, Decoder, GgufDtype, LatentConfig, LayeredModel, ModelConfig,
    Residency, StorageDtype,
};

use self::attention::rewritten;
use self::entries::{Entry, Part, Place, entries, part, target_shape};
pub use self::quantization::Quantization;
use self::survey::{Survey, built_in_text, survey};
use crate::layer::assemble::tensors;
use crate::layer::latent_norm::NormForm;
use crate::layer::stream::CalibrationStream;
use crate::output::lost_rows::lost_rows;
use crate::spec::error::ConvertError;
use crate::spec::options::FileFormat;
use crate::spec::plan::Plan;

/// What a GGUF file is to be.
#[derive(Debug, Clone, Copy, Default)]
pub struct GgufOptions<'a> {
    /// llama.cpp's name for how a byte-level tokenizer splits text, where that cannot be told from tokenizer.json.
    pub pre_tokenizer: Option<&'a str>,
    /// How matrices are quantised; otherwise they keep the number format of the weights.
    pub quantization: Option<Quantization>,
    /// Replace a file that exists. Otherwise one that exists, or has come to exist when the file is done, is left alone.
    pub replace: bool,
}

/// Writes a saved stock DeepSeek-V3 model with dense layers as GGUF; norms in f32.
///
/// llama.cpp runs it by its absorbed form, with one latent per token in the cache. The file has one epsilon for all norms, so the
/// residual stream is rescaled for one that makes ordinary numbers of the latents: the model runs a short built-in text on
/// `device` for it. Name, licence and base model are those of the folder's model card.
///
/// # Errors
/// The model is not in stock form or has lost its latents, its tokenizer cannot be expressed, its chat template or its card
/// cannot be read, a tensor cannot be read, or the
/// file not written; the file exists (and `replace` is not set).
pub fn write_gguf(folder: &Path, path: &Path, options: &GgufOptions<'_>, device: &Device) -> Result<(), ConvertError> {
    let config = ModelConfig::read(folder)?;
    let AttentionConfig::Latent(latent) = config.attention.clone() else {
        return Err(ConvertError::NotLatent {
            model_type: config.model_type.clone(),
        });
    };
    let refuse = |problem: String| Err(ConvertError::Gguf { problem });
    if config.model_type != "deepseek_v3" {
        return refuse(format!(
            "llama.cpp knows DeepSeek's form alone, and this is a {}",
            config.model_type
        ));
    }
    if config.rope.of(0).scaling != RopeScaling::Default || latent.biases {
        return refuse(format!(
            "llama.cpp's deepseek2 runs no {}; transformers does",
            match latent.biases {
                true => "biases".to_owned(),
                false => format!(
                    "{} scaling as it is written here",
                    config.rope.of(0).scaling.rope_type()
                ),
            }
        ));
    }
    let checkpoint = Checkpoint::open(folder)?;
    transmla_core::model::check_headers(&config, &checkpoint)?;
    let mut texts = about::keys(folder)?;
    texts.extend(vocabulary::keys(folder, &config, options.pre_tokenizer)?);
    if let Some(problem) = lost_rows(&config, &latent, &checkpoint)? {
        return refuse(problem);
    }
    let dtype = checkpoint
        .dtype("model.embed_tokens.weight")?
        .storage()
        .unwrap_or_default();
    let model = Decoder::new(config, checkpoint, device, Residency::Streamed)?;
    let text = built_in_text(folder, model.config())?;
    let found = survey(&model, &text)?;
    let file = File {
        form: NormForm::of_file(model.config().rms_norm_eps * found.residual_scale.powi(2)),
        query_rank: query_rank(model.config(), &latent),
        latent,
        found,
        dtype,
        quantization: options.quantization,
    };
    let stream = CalibrationStream::new(&model, &text, 1, false)?;
    file.write(&model, stream, (path, options.replace), texts)
}

/// Whether a source's tokenizer and chat template can go into a GGUF file, where the plan asks for one.
///
/// # Errors
/// [`ConvertError::Gguf`] with what is in the way; files of the tokenizer that cannot be read.
pub fn check_gguf(plan: &Plan, source: &Path) -> Result<(), ConvertError> {
    match plan.recipe().file_format() {
        FileFormat::Safetensors => Ok(()),
        FileFormat::Gguf => {
            about::keys(source)?;
            vocabulary::keys(source, plan.converted(), plan.recipe().pre_tokenizer.as_deref()).map(|_| ())
        }
    }
}

/// Width of the query latent in the file, or nothing for full queries.
///
/// llama.cpp takes models of 26 and 27 layers, and of 48 with a vocabulary of 128256, for lite ones: it ignores the rank and
/// wants full queries. From all others it wants a query latent.
fn query_rank(config: &ModelConfig, latent: &LatentConfig) -> Option<usize> {
    let lite = match config.num_hidden_layers {
        26 | 27 => true,
        48 => config.vocab_size == 128_256,
        _ => false,
    };
    (!lite).then(|| latent.q_lora_rank.unwrap_or(config.hidden_size))
}

/// A file to write.
struct File {
    form: NormForm,
    /// Width of the query latent; nothing for full queries.
    query_rank: Option<usize>,
    latent: LatentConfig,
    found: Survey,
    dtype: StorageDtype,
    quantization: Option<Quantization>,
}

impl File {
    fn write(
        &self,
        model: &Decoder,
        mut stream: CalibrationStream,
        (path, replace): (&Path, bool),
        texts: Vec<(String, GgufValue)>,
    ) -> Result<(), ConvertError> {
        let (config, latent) = (model.config(), &self.latent);
        let mut keys = self.keys(config);
        keys.extend(texts);
        let entries = entries(config, latent, self.query_rank);
        let tensor = |entry: &Entry| {
            let shape = target_shape(entry, config, latent);
            GgufTensor {
                name: entry.name.clone(),
                dtype: self.dtype_of(entry, &shape, config),
                shape,
            }
        };
        let mut writer = GgufWriter::create(path, &keys, entries.iter().map(tensor).collect(), replace)?;
        let mut current: Option<Layer> = None;
        for entry in &entries {
            if let Some(index) = entry.layer
                && current.as_ref().is_none_or(|layer| layer.index != index)
            {
                if let Some(done) = current.take() {
                    stream.advance(&done.layer, &mut || ())?;
                }
                current = Some(self.layer(model, &stream, index)?);
            }
            let values = self.values(entry, model.checkpoint(), current.as_mut())?;
            let values = match entry.part {
                Part::Whole => values,
                kept => part(kept, &values, config, latent),
            };
            writer.write(&entry.name, &values)?;
        }
        Ok(writer.commit()?)
    }

    fn dtype_of(&self, entry: &Entry, shape: &[usize], config: &ModelConfig) -> GgufDtype {
        match (self.quantization, shape) {
            // ggml's norms take f32 weights.
            (_, [_]) => StorageDtype::F32.into(),
            (Some(quantization), [.., row]) => {
                let (layers, tied) = (config.num_hidden_layers, config.tie_word_embeddings);
                quantization.of_matrix(&entry.name, *row, entry.layer, layers, tied)
            }
            _ => self.dtype.into(),
        }
    }

    /// A layer's attention in the file's form.
    fn layer(&self, model: &Decoder, stream: &CalibrationStream, index: usize) -> Result<Layer, ConvertError> {
        let layer = model.layer(index)?;
        let (attention, norms) = rewritten(&layer, stream, &self.form, self.query_rank)?;
        let made = tensors(index, &attention, Some(&norms), self.found.residual_scale)?;
        Ok(Layer {
            index,
            layer,
            attention: made.into_iter().collect(),
            input_scale: norms.input_scale,
        })
    }

    /// The values of an entry's source in the file's form.
    fn values(
        &self,
        entry: &Entry,
        checkpoint: &Checkpoint,
        layer: Option<&mut Layer>,
    ) -> Result<Vec<f32>, ConvertError> {
        let scale = match entry.place {
            Place::Attention => {
                let found = layer.and_then(|layer| match entry.part {
                    Part::Keys => layer.attention.get(&entry.source).cloned(),
                    _ => layer.attention.remove(&entry.source),
                });
                return found.ok_or_else(|| {
                    let problem = "the attention has no such tensor".into();
                    let name = entry.source.clone();
                    CheckpointError::Write { name, problem }.into()
                });
            }
            Place::InputNorm => layer.map_or(1.0, |layer| layer.input_scale),
            Place::AddedToResidual => self.found.residual_scale,
            Place::Elsewhere => 1.0,
        };
        let mut values = checkpoint.values(&entry.source, &entry.shape)?;
        if scale != 1.0 {
            values.iter_mut().for_each(|value| *value *= scale as f32);
        }
        Ok(values)
    }

    fn keys(&self, config: &ModelConfig) -> Vec<(String, GgufValue)> {
        let latent = &self.latent;
        let mut keys = vec![
            ("general.architecture".to_owned(), GgufValue::Text("deepseek2".into())),
            (
                "general.file_type".into(),
                GgufValue::U32(match (self.quantization, self.dtype) {
                    (Some(quantization), _) => quantization.file_type(),
                    (None, StorageDtype::F32) => 0,
                    (None, StorageDtype::F16) => 1,
                    (None, StorageDtype::Bf16) => 32,
                }),
            ),
        ];
        if self.quantization.is_some() {
            let version = GgufValue::U32(quantization::VERSION);
            keys.push(("general.quantization_version".into(), version));
        }
        let mut size = |key: &str, number: usize| {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            keys.push((format!("deepseek2.{key}"), GgufValue::U32(number)));
        };
        let rope = latent.qk_rope_head_dim;
        size("block_count", config.num_hidden_layers);
        size("context_length", config.max_position_embeddings);
        size("embedding_length", config.hidden_size);
        size("feed_forward_length", config.intermediate_size);
        size("vocab_size", config.vocab_size);
        size("attention.head_count", config.num_attention_heads);
        // Absorbed, all heads share the latent.
        size("attention.head_count_kv", 1);
        if let Some(rank) = self.query_rank {
            size("attention.q_lora_rank", rank);
        }
        size("attention.kv_lora_rank", latent.kv_lora_rank);
        size("attention.key_length", latent.kv_lora_rank + rope);
        size("attention.value_length", latent.kv_lora_rank);
        size("attention.key_length_mla", latent.query_width());
        size("attention.value_length_mla", latent.v_head_dim);
        size("rope.dimension_count", rope);
        // No layer has experts; the loader asks for these all the same.
        size("leading_dense_block_count", config.num_hidden_layers);
        size("expert_feed_forward_length", config.intermediate_size);
        size("expert_shared_count", 0);
        let mut number = |key: &str, value: f64| {
            keys.push((format!("deepseek2.{key}"), GgufValue::F32(value as f32)));
        };
        number("rope.freq_base", config.rope.of(0).theta);
        number("attention.layer_norm_rms_epsilon", self.form.eps);
        keys
    }
}

/// A layer whose tensors are being written.
struct Layer {
    index: usize,
    layer: transmla_core::DecoderLayer,
    attention: HashMap<String, Vec<f32>>,
    input_scale: f64,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn rank(layers: usize, vocabulary: usize, q_lora_rank: Option<usize>) -> Option<usize> {
        let config = json!({
            "model_type": "deepseek_v3", "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": layers,
            "num_attention_heads": 2, "vocab_size": vocabulary, "kv_lora_rank": 4, "qk_nope_head_dim": 4,
            "qk_rope_head_dim": 2, "v_head_dim": 4, "q_lora_rank": q_lora_rank, "first_k_dense_replace": layers,
        });
        let config = ModelConfig::from_json(config.as_object().cloned().unwrap()).unwrap();
        let AttentionConfig::Latent(latent) = &config.attention else {
            panic!("latent attention");
        };
        query_rank(&config, latent)
    }

    /// The layer counts that llama.cpp's loader takes for lite models.
    #[test]
    fn lite_models_have_full_queries() {
        for (layers, vocabulary) in [(26, 100), (27, 100), (48, 128_256)] {
            assert_eq!(rank(layers, vocabulary, None), None);
            assert_eq!(rank(layers, vocabulary, Some(8)), None);
        }
        for (layers, vocabulary) in [(25, 100), (28, 100), (48, 128_255), (47, 128_256), (61, 100)] {
            assert_eq!(rank(layers, vocabulary, None), Some(16));
            assert_eq!(rank(layers, vocabulary, Some(8)), Some(8));
        }
    }
}
