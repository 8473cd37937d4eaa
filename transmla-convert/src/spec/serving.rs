//! How the programs that run converted models are started on one.

use transmla_core::config::LatentStyle;

use crate::spec::engine::{COMMON_SHAPE, GGUF_FILE};
use crate::spec::options::{Engine, FileFormat};
use crate::spec::plan::Plan;
use crate::spec::vllm;

impl Engine {
    /// The widths (`qk_mqa_dim`, `kv_lora_rank`) that all of its kernels are made for, if some are made for no others.
    pub(crate) fn common_shape(self) -> Option<(usize, usize)> {
        let (rank, rope) = COMMON_SHAPE;
        match self {
            Self::Vllm | Self::Sglang => Some((rope, rank)),
            Self::Transformers | Self::LlamaCpp | Self::Mlx | Self::MistralRs => None,
        }
    }

    /// Numbers per token and layer that its caches of latents hold on GPUs, if not any number.
    pub(crate) fn cache_widths(self) -> &'static [usize] {
        match self {
            Self::Vllm => &vllm::WIDTHS,
            Self::Sglang | Self::Transformers | Self::LlamaCpp | Self::Mlx | Self::MistralRs => &[],
        }
    }

    /// What is to be known before it runs a model: what it needs, which kernels serve the shapes, and what none of them does.
    pub fn remarks(self, plan: &Plan) -> Vec<String> {
        match self {
            Self::Vllm => vllm::remarks(plan),
            Self::Sglang => sglang_width(plan).into_iter().collect(),
            Self::Transformers | Self::LlamaCpp | Self::Mlx | Self::MistralRs => Vec::new(),
        }
    }

    /// The command that serves or runs the model in the folder `path`.
    pub fn command(self, plan: &Plan, path: &str) -> String {
        match self {
            Self::Transformers => format!("AutoModelForCausalLM.from_pretrained('{path}'{})", remote_code(plan)),
            Self::Vllm => vllm::command(plan, path),
            Self::Sglang => {
                let backend = if sglang_width(plan).is_some() {
                    " --attention-backend triton"
                } else {
                    ""
                };
                format!("python -m sglang.launch_server --model-path {path}{backend}")
            }
            Self::Mlx => format!("mlx_lm.server --model {path}"),
            Self::MistralRs => {
                // It goes by `architectures`, where a model with biases has another name.
                let name = if plan.latent().biases { " --arch deepseekv3" } else { "" };
                format!("mistralrs serve -m {path}{name}")
            }
            Self::LlamaCpp => match plan.recipe().file_format() {
                FileFormat::Gguf => format!("llama-cli -m {path}/{GGUF_FILE}"),
                FileFormat::Safetensors => format!("transmla export --model-path {path} --output {path}.gguf"),
            },
        }
    }
}

/// What other widths than the common ones keep SGLang from.
fn sglang_width(plan: &Plan) -> Option<String> {
    let (rank, rope) = (plan.latent().kv_lora_rank, plan.latent().qk_rope_head_dim);
    ((rank, rope) != COMMON_SHAPE).then(|| {
        format!(
            "{rank} + {rope} numbers per token are for --attention-backend triton alone (NVIDIA and AMD GPUs); 512 + 64 are for every \
             kernel"
        )
    })
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
    use crate::spec::options::{FreqFold, MethodName, Style};
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

    const ALL: [Engine; 6] = [
        Engine::Transformers,
        Engine::Vllm,
        Engine::Sglang,
        Engine::LlamaCpp,
        Engine::Mlx,
        Engine::MistralRs,
    ];

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
    fn what_stock_code_has_not_is_refused_or_a_familys_class() {
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
            let found = plan(&changes, &options(Engine::Transformers)).unwrap();
            assert_eq!(found.style() == LatentStyle::DeepseekV3, stock, "{changes}");
            if stock {
                let written = found.config_json();
                let name = written.text("/architectures/0").unwrap().to_owned();
                assert_eq!(name, "DeepseekV3TransformersForCausalLM", "{changes}");
            }
            for engine in [Engine::Sglang, Engine::LlamaCpp] {
                let found = problem(&changes, &options(engine));
                let says = [word, "target = \"transformers\"", &format!("target = \"{engine}\"")];
                assert!(says.iter().all(|word| found.contains(word)), "{changes}: {found}");
            }
            // Its plugin runs that.
            let found = plan(&changes, &options(Engine::Vllm)).unwrap();
            assert_eq!(found.style(), LatentStyle::Family, "{changes}");
            assert!(
                found.obstacle().is_some_and(|obstacle| obstacle.contains(word)),
                "{changes}"
            );
            assert!(Engine::Vllm.remarks(&found)[0].contains("transmla-vllm"));
            let stock = Recipe {
                style: Style::DeepseekV3,
                method: MethodName::Transmla,
                ..options(Engine::Vllm)
            };
            assert!(problem(&changes, &stock).contains(word), "{changes}");
        }
    }

    #[test]
    fn widths_that_kernels_lack_are_named() {
        for engine in ALL {
            let wide = |rank| Recipe {
                kv_lora_rank: Some(rank),
                ..options(engine)
            };
            let said = |rank| engine.remarks(&plan(&json!({}), &wide(rank)).unwrap()).join("; ");
            let (common, narrow) = (said(512), said(200));
            let (all, words) = match engine {
                Engine::Vllm => (
                    vec!["FLASH_ATTN_MLA (NVIDIA Hopper"],
                    vec!["200 + 64", "VLLM_MLA_DISABLE=1"],
                ),
                Engine::Sglang => (vec![], vec!["200 + 64", "--attention-backend triton"]),
                _ => (vec![], vec![]),
            };
            assert_eq!(
                (common.is_empty(), narrow.is_empty()),
                (all.is_empty(), words.is_empty()),
                "{engine}"
            );
            assert!(all.iter().all(|word| common.contains(word)), "{common}");
            assert!(words.iter().all(|word| narrow.contains(word)), "{narrow}");
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
    fn mlx_and_mistral_rs_have_biases_and_limits_of_their_own() {
        let biased = json!({"attention_bias": true});
        for (engine, command) in [
            (Engine::Mlx, "mlx_lm.server --model m"),
            (Engine::MistralRs, "mistralrs serve -m m --arch deepseekv3"),
        ] {
            let found = plan(&biased, &options(engine)).unwrap();
            assert_eq!(found.style(), LatentStyle::DeepseekV3);
            assert_eq!(engine.command(&found, "m"), command);
            assert!(problem(&json!({"model_type": "qwen3"}), &options(engine)).contains("normalises"));
        }
        let layers = |number: usize| problem(&json!({"num_hidden_layers": number}), &options(Engine::Mlx));
        assert_eq!(layers(61), "");
        assert!(layers(62).contains("layer 61"), "{}", layers(62));
        let llama3 = json!({"rope_scaling": {
            "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        }});
        let yarn = |truncate: bool| {
            let keys = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512, "truncate": truncate});
            json!({"rope_scaling": keys})
        };
        assert_eq!(problem(&llama3, &options(Engine::Mlx)), "");
        assert!(problem(&llama3, &options(Engine::MistralRs)).contains("llama3"));
        assert_eq!(problem(&yarn(true), &options(Engine::Mlx)), "");
        assert!(problem(&yarn(false), &options(Engine::Mlx)).contains("truncate"));
    }

    #[test]
    fn commands_fit_the_shapes() {
        for (rank, words) in [
            (512, "python -m sglang.launch_server --model-path m"),
            (256, "--attention-backend triton"),
        ] {
            let options = Recipe {
                kv_lora_rank: Some(rank),
                ..options(Engine::Sglang)
            };
            let command = Engine::Sglang.command(&plan(&json!({}), &options).unwrap(), "m");
            assert!(command.ends_with(words), "{command}");
        }
    }
}
