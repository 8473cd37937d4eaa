//! The model card: what a hub shows of a converted model, and how it is loaded.

use std::fmt::Write;
use std::path::Path;

use serde_json::{Value, json};
use transmla_core::config::LatentStyle;

use crate::engine::remote_code;
use crate::{Engine, FileFormat, Method, Plan};

/// What a card says beyond what the plan knows.
#[derive(Debug, Clone, Copy)]
pub struct ModelCard<'a> {
    /// The original, by hub id or name.
    pub base_model: &'a str,
    /// The text of the calibration.
    pub calibration: &'a str,
    /// The original's card, whose language and licence are carried over.
    pub original: Option<&'a str>,
}

/// Metadata of the original that a conversion does not change.
const CARRIED: [&str; 4] = ["license", "license_name", "license_link", "language"];

/// The contents of `README.md`: metadata as hubs read it, what the model is, and how to load it.
pub fn model_card(plan: &Plan, card: &ModelCard<'_>) -> String {
    let class = match plan.style {
        LatentStyle::DeepseekV3 => "DeepseekV3ForCausalLM".to_owned(),
        LatentStyle::Family => plan.source.family.latent_class(),
    };
    let (before, after) = plan.cache_numbers();
    let name = card.base_model.rsplit('/').find(|part| !part.is_empty());
    let name = name.unwrap_or(card.base_model);
    let latent = &plan.latent;
    let method = match plan.options.method {
        Method::Transmla => "transmla".to_owned(),
        Method::Coherent => format!("coherent, {} refinement steps", plan.options.refine),
    };
    let code = remote_code(plan);
    let engine = match plan.options.format {
        FileFormat::Gguf => Some(Engine::LlamaCpp),
        FileFormat::Safetensors => plan.options.target,
    };
    let load = match engine {
        None | Some(Engine::Transformers) => format!(
            "```python\n\
             from transformers import AutoModelForCausalLM, AutoTokenizer\n\
             model = AutoModelForCausalLM.from_pretrained(\"PATH\"{code})\n\
             tokenizer = AutoTokenizer.from_pretrained(\"PATH\")\n\
             ```\n\n"
        ),
        Some(engine) => format!("Made for {engine}:\n\n```sh\n{}\n```\n\n", engine.command(plan, "PATH")),
    };
    let mut text = metadata(plan, card);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# {name}, with multi-head latent attention\n\n\
         {name} converted from grouped-query to multi-head latent attention (MLA) by \
         [transmla](https://arxiv.org/abs/2502.07864), without training. The KV cache holds {after} numbers per token and \
         layer where the original's holds {before}.\n\n{load}"
    );
    let rows = [
        ("class", format!("`{class}`")),
        ("`kv_lora_rank`", latent.kv_lora_rank.to_string()),
        ("`qk_rope_head_dim`", latent.qk_rope_head_dim.to_string()),
        (
            "`q_lora_rank`",
            latent.q_lora_rank.map_or("none".into(), |rank| rank.to_string()),
        ),
        ("weights", plan.options.dtype.to_string()),
        ("method", method),
        ("calibrated on", card.calibration.replace(['\n', '|'], " ")),
    ];
    text += "| | |\n| --- | --- |\n";
    for (label, value) in rows {
        let _ = writeln!(text, "| {label} | {value} |");
    }
    text += match plan.style {
        LatentStyle::DeepseekV3 if plan.latent.biases => {
            "\nThe form is that of stock DeepSeek-V3 with dense layers and biases, which of all engines transformers alone has: the \
             name in `architectures` keeps the others from loading it without them. Its latent norms are the identity by their \
             weights, so they must be applied as the stock code does.\n"
        }
        LatentStyle::DeepseekV3 => {
            "\nThe form is that of stock DeepSeek-V3 with dense layers only. Its latent norms are the identity by their weights, \
             so they must be applied as the stock code does.\n"
        }
        LatentStyle::Family => {
            "\nStock DeepSeek code cannot express this model; `modeling_transmla.py` beside the weights runs it.\n"
        }
    };
    text += "\n`transmla.toml` is the recipe that makes it again. The licence is the original's.\n";
    text
}

/// The front matter, which is YAML; a JSON string is one of its strings.
fn metadata(plan: &Plan, card: &ModelCard<'_>) -> String {
    let library = match plan.options.format {
        FileFormat::Safetensors => "transformers",
        FileFormat::Gguf => "gguf",
    };
    let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: text-generation\n");
    let is_hub_id = card.base_model.split('/').count() == 2 && !Path::new(card.base_model).is_absolute();
    if is_hub_id {
        let _ = writeln!(
            text,
            "base_model: {}\nbase_model_relation: finetune",
            json!(card.base_model)
        );
    }
    for block in card.original.map(front_matter).unwrap_or_default() {
        if CARRIED.iter().any(|key| block.starts_with(&format!("{key}:"))) {
            text += &block;
        }
    }
    let tags: [Value; 3] = [json!("transmla"), json!("mla"), json!(plan.target.model_type)];
    text += "tags:\n";
    for tag in tags {
        let _ = writeln!(text, "- {tag}");
    }
    text + "---\n\n"
}

/// The keys of a card's front matter, each with its lines; none if it has no front matter.
fn front_matter(card: &str) -> Vec<String> {
    let mut lines = card.lines();
    if lines.next().map(str::trim_end) != Some("---") {
        return Vec::new();
    }
    let mut blocks: Vec<String> = Vec::new();
    for line in lines {
        if line.trim_end() == "---" {
            return blocks;
        }
        let belongs = line.starts_with([' ', '-', '\t']);
        match blocks.last_mut().filter(|_| belongs) {
            Some(block) => *block += &format!("{line}\n"),
            None => blocks.push(format!("{line}\n")),
        }
    }
    // Never closed: text that happens to begin with a rule.
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn front_matter_is_cut_into_keys() {
        let card = "---\nlicense: mit\nlanguage:\n- en\n- de\ntags:\n  - x\n---\n# Title\nlicense: none\n";
        assert_eq!(
            front_matter(card),
            ["license: mit\n", "language:\n- en\n- de\n", "tags:\n  - x\n"]
        );
        assert!(front_matter("---\nlicense: mit\n").is_empty());
        assert!(front_matter("# Title\n---\nlicense: mit\n---\n").is_empty());
    }
}
