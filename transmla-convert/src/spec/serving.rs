//! How the programs that run converted models are started on one.

use transmla_core::StorageDtype;
use transmla_core::config::LatentStyle;

use crate::spec::engine::GGUF_FILE;
use crate::spec::options::{Engine, FileFormat};
use crate::spec::plan::Plan;

/// Latent and rotary key that every kernel is made for; those in Triton take them from the configuration.
const COMMON_SHAPE: (usize, usize) = (512, 64);

impl Engine {
    /// The widths (`qk_mqa_dim`, `kv_lora_rank`) that all of its kernels are made for, if some are made for no others.
    pub(crate) fn common_shape(self) -> Option<(usize, usize)> {
        let (rank, rope) = COMMON_SHAPE;
        match self {
            Self::Vllm | Self::Sglang => Some((rope, rank)),
            Self::Transformers | Self::LlamaCpp => None,
        }
    }

    /// What of a model's shapes keeps the engine from some of its kernels or devices, though not from running it.
    pub fn restriction(self, plan: &Plan) -> Option<String> {
        let (rank, rope) = (plan.latent().kv_lora_rank, plan.latent().qk_rope_head_dim);
        if (rank, rope) == COMMON_SHAPE {
            return None;
        }
        let (backend, devices) = match self {
            Self::Vllm => ("TRITON_MLA", "NVIDIA, AMD and Intel GPUs; not on CPUs"),
            Self::Sglang => ("triton", "NVIDIA and AMD GPUs"),
            Self::Transformers | Self::LlamaCpp => return None,
        };
        Some(format!(
            "{rank} + {rope} numbers per token are for --attention-backend {backend} alone ({devices}); 512 + 64 are for every \
             kernel"
        ))
    }

    /// The command that serves or runs the model in the folder `path`.
    pub fn command(self, plan: &Plan, path: &str) -> String {
        let (rank, rope) = (plan.latent().kv_lora_rank, plan.latent().qk_rope_head_dim);
        let common = (rank, rope) == COMMON_SHAPE;
        // Its kernels on GPUs compute in 16 bits; left alone it makes bf16 of fp32 where the device has it.
        let wide = self == Self::Vllm && plan.recipe().dtype == StorageDtype::F32;
        let dtype = if wide { " --dtype bfloat16" } else { "" };
        match self {
            Self::Transformers => format!("AutoModelForCausalLM.from_pretrained('{path}'{})", remote_code(plan)),
            Self::Vllm if common => format!("vllm serve {path}{dtype}"),
            Self::Vllm => format!("vllm serve {path} --attention-backend TRITON_MLA{dtype}"),
            Self::Sglang if common => format!("python -m sglang.launch_server --model-path {path}"),
            Self::Sglang => format!("python -m sglang.launch_server --model-path {path} --attention-backend triton"),
            Self::LlamaCpp => match plan.recipe().file_format() {
                FileFormat::Gguf => format!("llama-cli -m {path}/{GGUF_FILE}"),
                FileFormat::Safetensors => format!("transmla export --model-path {path} --output {path}.gguf"),
            },
        }
    }
}

/// What loading in transformers needs for modelling code of the model's own.
pub(crate) fn remote_code(plan: &Plan) -> &'static str {
    match plan.style() {
        LatentStyle::DeepseekV3 => "",
        LatentStyle::Family => ", trust_remote_code=True",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use transmla_core::ModelConfig;

    use super::*;
    use crate::spec::error::ConvertError;
    use crate::spec::options::{FreqFold, Style};
    use crate::spec::recipe::Recipe;

    fn options(engine: Engine) -> Recipe {
        Recipe {
            freqfold: FreqFold::Fixed(2),
            engine: Some(engine),
            ..Recipe::default()
        }
    }

    /// A plan for a model of 4 key heads of 128 with other keys in its config.json.
    fn plan(changes: &Value, options: &Recipe) -> Result<Plan, ConvertError> {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 128, "vocab_size": 50, "rope_theta": 1e4,
        });
        let raw = config.as_object_mut().unwrap();
        raw.extend(changes.as_object().unwrap().clone());
        Plan::new(&ModelConfig::from_json(raw.clone()).unwrap(), options)
    }

    fn problem(changes: &Value, options: &Recipe) -> String {
        plan(changes, options).map_or_else(|error| error.to_string(), |_| String::new())
    }

    const ALL: [Engine; 4] = [Engine::Transformers, Engine::Vllm, Engine::Sglang, Engine::LlamaCpp];

    #[test]
    fn plain_models_run_everywhere() {
        for engine in ALL {
            let plan = plan(&json!({}), &options(engine)).unwrap();
            assert_eq!(plan.style(), LatentStyle::DeepseekV3, "{engine}");
            assert_eq!(
                plan.config_json().text("/architectures/0"),
                Some("DeepseekV3ForCausalLM")
            );
        }
    }

    #[test]
    fn what_only_transformers_runs_is_refused_for_others() {
        let llama3 = json!({
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        });
        for (changes, word, stock) in [
            (json!({"model_type": "qwen2"}), "biases", true),
            (json!({"attention_bias": true}), "biases", true),
            (json!({"rope_scaling": llama3}), "llama3", true),
            (json!({"model_type": "qwen3"}), "normalises", false),
            (json!({"model_type": "mistral", "sliding_window": 9}), "window", false),
        ] {
            let plan = plan(&changes, &options(Engine::Transformers)).unwrap();
            assert_eq!(plan.style() == LatentStyle::DeepseekV3, stock, "{changes}");
            if stock {
                let written = plan.config_json();
                let name = written.text("/architectures/0").unwrap().to_owned();
                assert_eq!(name, "DeepseekV3TransformersForCausalLM", "{changes}");
            }
            for engine in [Engine::Vllm, Engine::Sglang, Engine::LlamaCpp] {
                let found = problem(&changes, &options(engine));
                let says = [word, "target = \"transformers\"", &format!("target = \"{engine}\"")];
                assert!(says.iter().all(|word| found.contains(word)), "{changes}: {found}");
            }
        }
    }

    #[test]
    fn any_width_runs_and_kernels_that_lack_it_are_named() {
        for engine in ALL {
            let narrow = Recipe {
                kv_lora_rank: Some(200),
                ..options(engine)
            };
            let (narrow, common) = (
                plan(&json!({}), &narrow).unwrap(),
                plan(&json!({}), &options(engine)).unwrap(),
            );
            assert_eq!(engine.restriction(&common), None, "{engine}");
            let said = engine.restriction(&narrow).unwrap_or_default();
            let words = match engine {
                Engine::Vllm => vec!["200 + 64", "TRITON_MLA", "not on CPUs"],
                Engine::Sglang => vec!["200 + 64", "--attention-backend triton"],
                _ => vec![],
            };
            assert_eq!(said.is_empty(), words.is_empty(), "{engine}");
            assert!(words.iter().all(|word| said.contains(word)), "{said}");
        }
        let own = Recipe {
            style: Style::Family,
            ..options(Engine::Sglang)
        };
        assert!(problem(&json!({}), &own).contains("style = \"family\""));
    }

    #[test]
    fn gguf_is_for_llama_cpp() {
        let gguf = |engine| Recipe {
            format: Some(FileFormat::Gguf),
            engine,
            ..options(Engine::LlamaCpp)
        };
        assert_eq!(problem(&json!({}), &gguf(None)), "");
        assert!(problem(&json!({"model_type": "qwen2"}), &gguf(None)).contains("biases"));
        assert!(problem(&json!({}), &gguf(Some(Engine::Vllm))).contains("format = \"gguf\""));
    }

    #[test]
    fn commands_fit_the_shapes() {
        for (rank, rope, engine, words) in [
            (512, 64, Engine::Vllm, "vllm serve m"),
            (448, 128, Engine::Vllm, "vllm serve m --attention-backend TRITON_MLA"),
            (512, 64, Engine::Sglang, "python -m sglang.launch_server --model-path m"),
            (256, 64, Engine::Sglang, "--attention-backend triton"),
            (200, 64, Engine::Vllm, "vllm serve m --attention-backend TRITON_MLA"),
        ] {
            let options = Recipe {
                kv_lora_rank: Some(rank),
                qk_mqa_dim: Some(rope),
                freqfold: FreqFold::Fixed(4),
                ..options(engine)
            };
            let command = engine.command(&plan(&json!({}), &options).unwrap(), "m");
            assert!(command.ends_with(words), "{command}");
            let wide = Recipe {
                dtype: StorageDtype::F32,
                ..options
            };
            let command = engine.command(&plan(&json!({}), &wide).unwrap(), "m");
            assert_eq!(
                command.ends_with("--dtype bfloat16"),
                engine == Engine::Vllm,
                "{command}"
            );
        }
    }
}
