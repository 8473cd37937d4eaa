//! What vLLM 0.32 runs a converted model with, by device: `docs/engines.md` has the sources.

use std::fmt::Write as _;

use transmla_core::StorageDtype;
use transmla_core::config::LatentStyle;

use crate::spec::engine::COMMON_SHAPE;
use crate::spec::plan::Plan;

/// Numbers per token that its code for latent attention takes on GPUs, whatever a kernel could do.
pub(super) const WIDTHS: [usize; 3] = [320, 512, 576];

/// Why it takes the shapes of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Widths {
    /// Latents of 512 + 64, which all kernels are made for.
    Common,
    /// Another division or number that kernels in Triton take.
    Triton,
    /// None that a GPU takes.
    Other,
}

/// A kernel for a cache of latents.
struct Kernel {
    name: &'static str,
    /// Whether it takes other widths than 512 + 64.
    any_width: bool,
    /// Widths of a head without position that it takes, if not all.
    heads: &'static [usize],
}

/// Made for 512 + 64.
const fn made(name: &'static str, heads: &'static [usize]) -> Kernel {
    Kernel {
        name,
        any_width: false,
        heads,
    }
}

const TRITON: Kernel = Kernel {
    name: "TRITON_MLA",
    any_width: true,
    heads: &[],
};

/// Devices, and their kernels in the order in which vLLM asks them: the first that takes the shapes serves.
const DEVICES: &[(&str, &[Kernel])] = &[
    ("NVIDIA Hopper", &[made("FLASH_ATTN_MLA", &[]), TRITON]),
    (
        "NVIDIA B200",
        &[
            made("FLASHINFER_MLA", &[64, 128, 192]),
            made("CUTLASS_MLA", &[]),
            TRITON,
        ],
    ),
    ("other NVIDIA and AMD GPUs", &[TRITON]),
    ("Intel GPUs", &[made("FLASH_ATTN_MLA", &[]), TRITON]),
    ("CPUs", &[made("CPU_MLA", &[])]),
];

impl Widths {
    fn of(plan: &Plan) -> Self {
        let (rank, rope) = (plan.latent().kv_lora_rank, plan.latent().qk_rope_head_dim);
        match (rank, rope) {
            COMMON_SHAPE => Self::Common,
            _ if WIDTHS.contains(&(rank + rope)) => Self::Triton,
            _ => Self::Other,
        }
    }
}

/// The kernel that serves a model on each device that has one.
fn kernels(plan: &Plan) -> Vec<(&'static str, &'static str)> {
    let widths = Widths::of(plan);
    if widths == Widths::Other {
        return Vec::new();
    }
    let head = plan.latent().qk_nope_head_dim;
    let takes = |kernel: &&Kernel| {
        (widths == Widths::Common || kernel.any_width) && (kernel.heads.is_empty() || kernel.heads.contains(&head))
    };
    let first = |&(device, kernels): &(&'static str, &'static [Kernel])| {
        kernels.iter().find(takes).map(|kernel| (device, kernel.name))
    };
    DEVICES.iter().filter_map(first).collect()
}

/// Kernels with the devices that they serve a model on, as a sentence's part.
fn list(kernels: &[(&'static str, &'static str)]) -> String {
    let mut text = String::new();
    for (index, (_, kernel)) in kernels.iter().enumerate() {
        if kernels[..index].iter().any(|(_, earlier)| earlier == kernel) {
            continue;
        }
        let devices: Vec<_> = kernels
            .iter()
            .filter(|(_, name)| name == kernel)
            .map(|(device, _)| *device)
            .collect();
        let comma = if text.is_empty() { "" } else { ", " };
        // Writing to a string does not fail.
        let _ = write!(text, "{comma}{kernel} ({})", devices.join(", "));
    }
    text
}

/// What is to be known before a model is served.
pub(super) fn remarks(plan: &Plan) -> Vec<String> {
    let (rank, rope) = (plan.latent().kv_lora_rank, plan.latent().qk_rope_head_dim);
    let family = plan.style() == LatentStyle::Family;
    let mut remarks = Vec::new();
    if family {
        remarks.push("its plugin transmla-vllm runs the family's class: pip install ./python/transmla-vllm".into());
    }
    let capped = soft_capped(plan);
    remarks.push(match (Widths::of(plan), family) {
        _ if capped => "scores are soft-capped, which its kernels for latent attention on GPUs do not: CPUs alone, by the plugin".into(),
        (Widths::Common, _) => format!("kernels of vLLM 0.32: {}", list(&kernels(plan))),
        (Widths::Triton, false) => format!(
            "{rank} + {rope} numbers per token: {}, not CPUs; 512 + 64 are for every kernel",
            list(&kernels(plan))
        ),
        (Widths::Triton, true) => format!("{rank} + {rope} numbers per token: {}, and CPUs by the plugin", list(&kernels(plan))),
        (Widths::Other, false) => format!(
            "{rank} + {rope} numbers per token are none that vLLM 0.32 keeps in a cache of latents (320, 512 and 576 in all on GPUs, \
             512 + 64 on CPUs): VLLM_MLA_DISABLE=1 runs the model with keys and values in the cache"
        ),
        (Widths::Other, true) => format!(
            "{rank} + {rope} numbers per token run on CPUs alone, by the plugin; vLLM 0.32 takes 320, 512 and 576 in all on GPUs"
        ),
    });
    if let Some(window) = window(plan).filter(|_| !capped) {
        remarks.push(format!(
            "kernels for latent attention on GPUs have no windows: requests of up to {window} tokens there, of any length on CPUs"
        ));
    }
    remarks
}

/// The command that serves the model in the folder `path`.
pub(super) fn command(plan: &Plan, path: &str) -> String {
    let family = plan.style() == LatentStyle::Family;
    let (before, backend) = match Widths::of(plan) {
        Widths::Triton if !soft_capped(plan) => ("", " --attention-backend TRITON_MLA"),
        Widths::Other if !family => ("VLLM_MLA_DISABLE=1 ", ""),
        _ => ("", ""),
    };
    let context = match window(plan) {
        Some(window) if !soft_capped(plan) => format!(" --max-model-len {window}"),
        _ => String::new(),
    };
    // Its kernels on GPUs compute in 16 bits; left alone it makes bf16 of fp32 where the device has it.
    let wide = plan.recipe().dtype == StorageDtype::F32;
    let dtype = if wide { " --dtype bfloat16" } else { "" };
    format!("{before}vllm serve {path}{backend}{context}{dtype}")
}

fn soft_capped(plan: &Plan) -> bool {
    plan.converted().score_softcap.is_some()
}

/// Tokens that a layer with a window sees, if the model's contexts are longer.
fn window(plan: &Plan) -> Option<usize> {
    let window = plan.converted().window.as_ref()?.size;
    let context = plan.converted().max_position_embeddings;
    (window < context).then_some(window)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use transmla_core::ModelConfig;

    use super::*;
    use crate::spec::options::{Engine, Style};
    use crate::spec::recipe::Recipe;

    /// A plan of `rank` + 64 numbers for a model of 8 key heads with other keys in its config.json.
    fn plan(changes: &Value, rank: usize, rope: usize, style: Style) -> Plan {
        let mut config = json!({
            "model_type": "llama", "hidden_size": 1024, "intermediate_size": 64, "num_hidden_layers": 2,
            "num_attention_heads": 8, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 50, "rope_theta": 1e4,
            "max_position_embeddings": 4096,
        });
        let raw = config.as_object_mut().unwrap();
        raw.extend(changes.as_object().unwrap().clone());
        let recipe = Recipe {
            engine: Some(Engine::Vllm),
            kv_lora_rank: Some(rank),
            qk_mqa_dim: Some(rope),
            style,
            ..Recipe::default()
        };
        Plan::new(&ModelConfig::from_json(raw.clone()).unwrap(), &recipe).unwrap()
    }

    #[test]
    fn each_device_has_the_first_kernel_that_takes_the_shapes() {
        let found = |head: usize, rank, rope| {
            let plan = plan(&json!({"head_dim": head}), rank, rope, Style::Auto);
            kernels(&plan).into_iter().map(|(_, kernel)| kernel).collect::<Vec<_>>()
        };
        let (fa, flashinfer, triton, cpu) = ("FLASH_ATTN_MLA", "FLASHINFER_MLA", "TRITON_MLA", "CPU_MLA");
        assert_eq!(found(128, 512, 64), [fa, flashinfer, triton, fa, cpu]);
        // FlashInfer's kernel is made for some heads.
        assert_eq!(found(256, 512, 64), [fa, "CUTLASS_MLA", triton, fa, cpu]);
        for (rank, rope) in [(256, 64), (448, 64), (448, 128)] {
            assert_eq!(found(128, rank, rope), [triton; 4], "{rank} + {rope}");
        }
        for (rank, rope) in [(200, 64), (512, 32), (576, 64)] {
            assert!(found(128, rank, rope).is_empty(), "{rank} + {rope}");
        }
    }

    #[test]
    fn commands_and_remarks_fit() {
        let windowed = json!({"model_type": "mistral", "sliding_window": 128});
        let unused = json!({"model_type": "mistral", "sliding_window": 4096});
        let gemma = json!({"model_type": "gemma2", "sliding_window": 128, "attn_logit_softcapping": 50.0});
        let plain = json!({});
        for (changes, rank, rope, style, ends, says) in [
            (
                &plain,
                512,
                64,
                Style::Auto,
                "vllm serve m",
                vec!["TRITON_MLA (other NVIDIA and AMD GPUs)"],
            ),
            (
                &plain,
                448,
                128,
                Style::Auto,
                "serve m --attention-backend TRITON_MLA",
                vec!["448 + 128", "not CPUs"],
            ),
            (
                &plain,
                200,
                64,
                Style::Auto,
                "VLLM_MLA_DISABLE=1 vllm serve m",
                vec!["200 + 64", "320, 512 and 576"],
            ),
            (
                &plain,
                512,
                64,
                Style::Family,
                "vllm serve m",
                vec!["transmla-vllm", "CPU_MLA (CPUs)"],
            ),
            (
                &plain,
                200,
                64,
                Style::Family,
                "vllm serve m",
                vec!["transmla-vllm", "CPUs alone"],
            ),
            (
                &windowed,
                512,
                64,
                Style::Auto,
                "serve m --max-model-len 128",
                vec!["up to 128 tokens"],
            ),
            (&unused, 512, 64, Style::Auto, "vllm serve m", vec!["transmla-vllm"]),
            (
                &gemma,
                512,
                64,
                Style::Auto,
                "vllm serve m",
                vec!["soft-capped", "CPUs alone"],
            ),
        ] {
            let plan = plan(changes, rank, rope, style);
            let (command, remarks) = (command(&plan, "m"), remarks(&plan).join("; "));
            assert!(command.ends_with(ends), "{command}");
            assert!(says.iter().all(|word| remarks.contains(word)), "{changes}: {remarks}");
            assert_eq!(remarks.contains("windows"), changes == &windowed, "{remarks}");
        }
        let wide = Plan::new(
            plan(&plain, 512, 64, Style::Auto).source(),
            &Recipe {
                dtype: StorageDtype::F32,
                ..plan(&plain, 512, 64, Style::Auto).recipe().clone()
            },
        );
        assert_eq!(command(&wide.unwrap(), "m"), "vllm serve m --dtype bfloat16");
    }
}
