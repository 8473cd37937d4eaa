//! ggml's tensor names and Hugging Face's.

use super::architecture::Architecture;
use crate::config::ExpertRule;

/// What a tensor of a file is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Role {
    /// One tensor of the model.
    Tensor(Name),
    /// The same matrix of all experts of a layer.
    Experts {
        /// Name of the experts' module.
        prefix: String,
        /// Name of the matrix within one.
        matrix: &'static str,
    },
    /// Factors of the rotary frequencies, which become a part of the configuration.
    RotaryFactors,
    /// Nothing that is known.
    Unknown,
}

/// Hugging Face's name, and what is different about the tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Name {
    pub published: String,
    pub rows: Rows,
}

/// What the rows of a tensor are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rows {
    /// Of query heads.
    Queries,
    /// Of key heads.
    Keys,
    /// The factors of a norm.
    Norm,
    /// The only row of a matrix, which may be there as a vector.
    One,
    /// Anything else.
    Other,
}

/// What a tensor is by its name.
pub(super) fn role(architecture: &Architecture, name: &str) -> Role {
    let tensor = |published: String, rows| Role::Tensor(Name { published, rows });
    match name {
        "token_embd.weight" => return tensor("model.embed_tokens.weight".into(), Rows::Other),
        "output_norm.weight" => return tensor("model.norm.weight".into(), Rows::Norm),
        "output.weight" => return tensor("lm_head.weight".into(), Rows::Other),
        "rope_freqs.weight" => return Role::RotaryFactors,
        _ => {}
    }
    let in_layer = || {
        let (layer, rest) = name.strip_prefix("blk.")?.split_once('.')?;
        let (part, kind) = rest.rsplit_once('.')?;
        let number = layer
            .parse::<usize>()
            .ok()
            .filter(|number| number.to_string() == layer)?;
        Some((number, part, kind))
    };
    let Some((layer, part, kind)) = in_layer() else {
        return Role::Unknown;
    };
    let prefix = format!("model.layers.{layer}");
    let of_layer = |module: &str, rows| tensor(format!("{prefix}.{module}.{kind}"), rows);
    match (part, kind) {
        ("attn_q", "weight" | "bias") => of_layer("self_attn.q_proj", Rows::Queries),
        ("attn_k", "weight" | "bias") => of_layer("self_attn.k_proj", Rows::Keys),
        ("attn_v", "weight" | "bias") => of_layer("self_attn.v_proj", Rows::Other),
        ("attn_qkv", "weight" | "bias") => of_layer("self_attn.qkv_proj", Rows::Other),
        ("attn_output", "weight" | "bias") => of_layer("self_attn.o_proj", Rows::Other),
        ("attn_q_norm", "weight") => of_layer("self_attn.q_norm", Rows::Norm),
        ("attn_k_norm", "weight") => of_layer("self_attn.k_norm", Rows::Norm),
        ("attn_norm", "weight") => of_layer("input_layernorm", Rows::Norm),
        ("ffn_norm", "weight") => of_layer(architecture.mlp_norm, Rows::Norm),
        ("post_attention_norm", "weight") => of_layer("post_attention_layernorm", Rows::Norm),
        ("post_ffw_norm", "weight") => of_layer("post_feedforward_layernorm", Rows::Norm),
        ("ffn_gate", "weight") => of_layer("mlp.gate_proj", Rows::Other),
        ("ffn_up", "weight") => of_layer(architecture.mlp_up, Rows::Other),
        ("ffn_down", "weight") => of_layer("mlp.down_proj", Rows::Other),
        (_, "weight") => architecture.experts().map_or(Role::Unknown, |rule| {
            expert(&format!("{prefix}.{}", rule.module), rule, part)
        }),
        _ => Role::Unknown,
    }
}

/// The router, what all tokens share, and matrices of experts: all in one tensor, or one by one as older files have them
/// (`ffn_gate.3`).
fn expert(module: &str, rule: ExpertRule, part: &str) -> Role {
    let tensor = |name: &str, rows| {
        Role::Tensor(Name {
            published: format!("{module}.{name}.weight"),
            rows,
        })
    };
    let matrix = |name: &str| match name {
        "ffn_gate" => Some(rule.names.gate),
        "ffn_up" => Some(rule.names.up),
        "ffn_down" => Some(rule.names.down),
        _ => None,
    };
    match part {
        "ffn_gate_inp" => return tensor("gate", Rows::Other),
        "ffn_gate_inp_shexp" if rule.shared => return tensor("shared_expert_gate", Rows::One),
        _ => {}
    }
    if let Some(matrix) = part.strip_suffix("_exps").and_then(matrix) {
        return Role::Experts {
            prefix: format!("{module}.experts"),
            matrix,
        };
    }
    if let Some(matrix) = part.strip_suffix("_shexp").filter(|_| rule.shared).and_then(matrix) {
        return tensor(&format!("shared_expert.{matrix}"), Rows::Other);
    }
    let single = part.split_once('.').and_then(|(name, expert)| {
        let number = expert
            .parse::<usize>()
            .ok()
            .filter(|number| number.to_string() == expert)?;
        Some(format!("experts.{number}.{}", matrix(name)?))
    });
    single.map_or(Role::Unknown, |name| tensor(&name, Rows::Other))
}

#[cfg(test)]
mod tests {
    use super::super::architecture::find;
    use super::*;

    #[test]
    fn names_are_hugging_faces() {
        let published = |architecture: &str, name: &str| match role(find(architecture).unwrap(), name) {
            Role::Tensor(name) => name.published,
            other => format!("{other:?}"),
        };
        for (name, expected) in [
            ("blk.3.attn_q.weight", "model.layers.3.self_attn.q_proj.weight"),
            (
                "blk.3.ffn_norm.weight",
                "model.layers.3.post_attention_layernorm.weight",
            ),
            (
                "blk.3.ffn_up.7.weight",
                "model.layers.3.block_sparse_moe.experts.7.w3.weight",
            ),
            ("blk.03.ffn_up.weight", "Unknown"),
            ("blk.3.attn_q.scale", "Unknown"),
            ("blk.3.attn_sinks.weight", "Unknown"),
            ("v.patch_embd.weight", "Unknown"),
        ] {
            assert_eq!(published("llama", name), expected);
        }
        for (architecture, name, expected) in [
            ("phi3", "attn_qkv", "self_attn.qkv_proj"),
            ("phi3", "ffn_up", "mlp.gate_up_proj"),
            ("qwen3", "ffn_up", "mlp.up_proj"),
            ("qwen3moe", "ffn_gate_inp", "mlp.gate"),
            ("qwen3moe", "ffn_down.2", "mlp.experts.2.down_proj"),
            ("qwen2moe", "ffn_up_shexp", "mlp.shared_expert.up_proj"),
            ("qwen2moe", "ffn_gate_inp_shexp", "mlp.shared_expert_gate"),
        ] {
            let found = published(architecture, &format!("blk.3.{name}.weight"));
            assert_eq!(found, format!("model.layers.3.{expected}.weight"));
        }
        for (architecture, name) in [
            ("qwen3moe", "ffn_up_shexp"),
            ("qwen3", "ffn_gate_inp"),
            ("qwen2", "ffn_up_exps"),
        ] {
            assert_eq!(published(architecture, &format!("blk.3.{name}.weight")), "Unknown");
        }
        assert_eq!(
            published("gemma3", "blk.3.ffn_norm.weight"),
            "model.layers.3.pre_feedforward_layernorm.weight"
        );
        assert_eq!(
            published("gemma3", "blk.3.post_attention_norm.weight"),
            "model.layers.3.post_attention_layernorm.weight"
        );
    }
}
