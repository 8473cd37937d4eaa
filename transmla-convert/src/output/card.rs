//! The model card: what a hub shows of a converted model, and how it is loaded.

use std::fmt::Write;

use serde_json::{Value, json};
use transmla_core::config::LatentStyle;
use transmla_eval::Perplexity;
use transmla_eval::tasks::{Figure, TaskRow};

use crate::output::front_matter::{front_matter, is_line_end, is_local, scalar};
use crate::solve::{credits, summary};
use crate::spec::options::{Engine, FileFormat};
use crate::spec::plan::Plan;
use crate::spec::recipe_tasks::RecipeTasks;
use crate::spec::report::Report;
use crate::spec::serving::remote_code;

/// What a card says beyond what the plan knows.
#[derive(Debug, Clone, Copy)]
pub struct ModelCard<'a> {
    /// The original's id on the hub, if it is from there.
    pub base_model: Option<&'a str>,
    /// The original's name, for people.
    pub name: &'a str,
    /// The text of the calibration.
    pub calibration: &'a str,
    /// The text of the evaluation, if there is one.
    pub evaluation: Option<&'a str>,
    /// The quantised number formats of the original's weights, if it has such ([`Checkpoint::quantisation`](transmla_core::Checkpoint::quantisation)).
    pub quantised: Option<&'a str>,
    /// The original's card, whose language and licence are carried over.
    pub original: Option<&'a str>,
}

/// Where this program is from.
const REPOSITORY: &str = env!("CARGO_PKG_REPOSITORY");

/// Metadata of the original that a conversion does not change, each one word or line, or a list of such.
const CARRIED: [&str; 4] = ["license", "license_name", "license_link", "language"];

/// The contents of `README.md`: metadata as hubs read it, what the model is, how to load it, and what was measured.
pub fn model_card(plan: &Plan, card: &ModelCard<'_>, report: &Report) -> String {
    let class = match plan.style() {
        LatentStyle::DeepseekV3 => "DeepseekV3ForCausalLM".to_owned(),
        LatentStyle::Family => plan.source().family.latent_class(),
    };
    let (before, after) = plan.cache_numbers();
    let name = markdown(card.name);
    let latent = &plan.latent();
    let method = summary(plan.recipe());
    let code = remote_code(plan);
    let engine = match plan.recipe().file_format() {
        FileFormat::Gguf => Some(Engine::LlamaCpp),
        FileFormat::Safetensors => plan.recipe().engine,
    };
    let load = match engine {
        None | Some(Engine::Transformers) => format!(
            "```python\n\
             from transformers import AutoModelForCausalLM, AutoTokenizer\n\
             model = AutoModelForCausalLM.from_pretrained(\"PATH\"{code})\n\
             tokenizer = AutoTokenizer.from_pretrained(\"PATH\"{code})\n\
             ```\n\n"
        ),
        Some(engine) => format!("Made for {engine}:\n\n```sh\n{}\n```\n\n", engine.command(plan, "PATH")),
    };
    let mut text = metadata(plan, card);
    // Writing to a string does not fail.
    let _ = write!(
        text,
        "# {name}, with multi-head latent attention\n\n\
         {name} converted from grouped-query to multi-head latent attention (MLA) by [transmla]({REPOSITORY}). The KV cache \
         holds {after} numbers per token and layer where the original's holds {before}. {}\n\n{load}",
        credits(plan.recipe())
    );
    let mut rows = vec![("class", format!("`{class}`"))];
    if latent.latent_groups > 1 {
        let groups = "groups of heads with a latent and a rotary key each";
        rows.push(("`latent_groups`", format!("{}, {groups}", latent.latent_groups)));
    }
    if latent.tied {
        rows.push(("`tied_latent`", "a latent is its heads' value and key as it is".into()));
    }
    rows.extend([
        ("`kv_lora_rank`", latent.kv_lora_rank.to_string()),
        ("`qk_rope_head_dim`", latent.qk_rope_head_dim.to_string()),
        (
            "`q_lora_rank`",
            latent.q_lora_rank.map_or("none".into(), |rank| rank.to_string()),
        ),
        ("weights", plan.recipe().dtype.to_string()),
        ("method", method),
        ("calibrated on", markdown(card.calibration)),
    ]);
    if let Some(formats) = card.quantised {
        rows.push(("made from", format!("quantised weights: {}", markdown(formats))));
    }
    let measured = [
        ("perplexity", report.mla),
        ("perplexity of the original", report.original),
    ];
    rows.extend(
        measured
            .into_iter()
            .filter_map(|(label, found)| Some((label, perplexity(&found?)))),
    );
    if let (Some(text), Some(found)) = (card.evaluation, report.mla) {
        let windows = if found.windows == 1 { "window" } else { "windows" };
        let text = format!("{} {windows} of {}", found.windows, markdown(text));
        rows.push(("perplexities measured on", text));
    }
    text += "| | |\n| --- | --- |\n";
    for (label, value) in rows {
        let _ = writeln!(text, "| {label} | {value} |");
    }
    text += &accuracy(&report.tasks, &plan.recipe().tasks);
    text += match plan.style() {
        LatentStyle::DeepseekV3 if plan.latent().biases => {
            "\nThe form is that of stock DeepSeek-V3 with dense layers and biases, which transformers has, and vLLM with the plugin \
             transmla-vllm: the name in `architectures` keeps others from loading it without them. Its latent norms are the identity by their \
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

/// What both models have on tasks, as a table; parts of groups are left out.
fn accuracy(rows: &[TaskRow], asked: &RecipeTasks) -> String {
    let mut text = String::new();
    for row in rows.iter().filter(|row| !row.is_part) {
        let Some(converted) = &row.against else { continue };
        for (before, after) in row.figures.iter().zip(&converted.figures) {
            let (task, metric) = (markdown(&row.task), markdown(before.metric.name()));
            let (records, before, after) = (row.records, figure(before), figure(after));
            let _ = writeln!(text, "| {task} | {metric} | {records} | {before} | {after} |");
        }
    }
    if text.is_empty() {
        return text;
    }
    let shots = match asked.num_fewshot {
        0 => "without examples".to_owned(),
        1 => "with one example".to_owned(),
        count => format!("with {count} examples"),
    };
    let chat = if asked.apply_chat_template { ", as chats" } else { "" };
    format!(
        "\nAccuracy on tasks, {shots}{chat}, scored as lm-evaluation-harness does:\n\n\
         | task | metric | records | original | converted |\n| --- | --- | --- | --- | --- |\n{text}"
    )
}

/// A figure with its standard error.
fn figure(figure: &Figure) -> String {
    let value = figure.value;
    figure
        .error
        .map_or(format!("{value:.4}"), |error| format!("{value:.4} ± {error:.4}"))
}

/// A perplexity with its standard error, to first order.
fn perplexity(found: &Perplexity) -> String {
    let (value, error) = (found.perplexity, found.standard_error);
    error.map_or(format!("{value:.3}"), |error| {
        format!("{value:.3} ± {:.3}", value * error)
    })
}

/// The front matter, which is YAML; a JSON string is one of its strings.
fn metadata(plan: &Plan, card: &ModelCard<'_>) -> String {
    let library = match plan.recipe().file_format() {
        FileFormat::Safetensors => "transformers",
        FileFormat::Gguf => "gguf",
    };
    let mut text = format!("---\nlibrary_name: {library}\npipeline_tag: text-generation\n");
    let _ = writeln!(text, "model_name: {}", scalar(&format!("{}-MLA", one_line(card.name))));
    if let Some(id) = card.base_model {
        let _ = writeln!(text, "base_model: {}\nbase_model_relation: finetune", json!(id));
    }
    let front = card.original.map(front_matter).unwrap_or_default();
    // A link to somewhere on the machine of its author is none.
    let is_carried = |(key, values): &&(String, Vec<String>)| {
        CARRIED.contains(&key.as_str()) && (key != "license_link" || values.iter().all(|link| !is_local(link)))
    };
    for (key, values) in front.iter().filter(is_carried) {
        let _ = match values.as_slice() {
            [] => Ok(()),
            [value] => writeln!(text, "{key}: {}", scalar(value)),
            list => {
                let items: String = list.iter().map(|value| format!("- {}\n", scalar(value))).collect();
                write!(text, "{key}:\n{items}")
            }
        };
    }
    let tags: [Value; 3] = [json!("transmla"), json!("mla"), json!(plan.converted().model_type)];
    text += "tags:\n";
    for tag in tags {
        let _ = writeln!(text, "- {tag}");
    }
    text + "---\n\n"
}

/// A text that Markdown shows as it is, on one line and in one cell of a table.
fn markdown(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in one_line(text).chars() {
        if r"\`*_[]<>|#!~&$".contains(character) {
            out.push('\\');
        }
        out.push(character);
    }
    out
}

/// A text without line ends, control characters, and what turns the direction of a text.
fn one_line(text: &str) -> String {
    let turns = |character: char| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let kept = text.chars().filter(|character| !turns(*character));
    kept.map(|character| {
        if character.is_control() || is_line_end(character) {
            ' '
        } else {
            character
        }
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are() {
        assert_eq!(markdown("SmolLM2-135M"), "SmolLM2-135M");
        let name = "a|b`c`<script>[x](y)\n# z\u{1b}[m";
        assert_eq!(markdown(name), r"a\|b\`c\`\<script\>\[x\](y) \# z \[m");
    }
}
