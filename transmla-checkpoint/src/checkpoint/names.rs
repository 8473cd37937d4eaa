//! From the names that wrappers save tensors by to those that transformers publishes.

/// Published name of the token embeddings.
pub(crate) const EMBEDDING: &str = "model.embed_tokens.weight";

/// Published name of the output head.
pub(crate) const HEAD: &str = "lm_head.weight";

/// Modules that wrappers put anywhere between a model's own: `torch.compile`, FSDP, activation checkpointing.
const BETWEEN: [&str; 3] = ["_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"];

/// Modules in front of a whole model: data parallelism and DeepSpeed, a value head of trl, an adapter that was merged.
const IN_FRONT: [&str; 3] = ["module.", "pretrained_model.", "base_model.model."];

/// What a model of this layout has at its top, and what a base model that was saved alone therefore starts with.
const BASE: [&str; 5] = ["embed_tokens.", "layers.", "norm.", "rotary_emb.", "mtp_layers."];

/// Stored and published name of each tensor whose two names differ.
pub(super) fn changed<'a>(stored: impl Iterator<Item = &'a String>) -> Vec<(String, String)> {
    stored
        .map(|name| (name, published(name)))
        .filter(|(stored, published)| *stored != published)
        .map(|(stored, published)| (stored.clone(), published))
        .collect()
}

/// The published name of one tensor.
fn published(stored: &str) -> String {
    let parts: Vec<&str> = stored.split('.').filter(|part| !BETWEEN.contains(part)).collect();
    let joined = parts.join(".");
    let mut name = joined.as_str();
    while let Some(rest) = IN_FRONT.iter().find_map(|front| name.strip_prefix(front)) {
        name = rest;
    }
    // A causal model that was an attribute `model` of another module.
    while let Some(rest) = name.strip_prefix("model.") {
        match rest.starts_with("model.") || rest.starts_with("lm_head.") {
            true => name = rest,
            false => break,
        }
    }
    match BASE.iter().any(|start| name.starts_with(start)) {
        true => format!("model.{name}"),
        false => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrappers_are_undone() {
        for (stored, expected) in [
            (
                "model.layers.0.self_attn.q_proj.weight",
                "model.layers.0.self_attn.q_proj.weight",
            ),
            ("lm_head.weight", "lm_head.weight"),
            ("_orig_mod.model.norm.weight", "model.norm.weight"),
            ("_orig_mod._orig_mod.lm_head.weight", "lm_head.weight"),
            ("module.model.norm.weight", "model.norm.weight"),
            ("module._orig_mod.module.model.norm.weight", "model.norm.weight"),
            (
                "model.layers.1._orig_mod.mlp.up_proj.weight",
                "model.layers.1.mlp.up_proj.weight",
            ),
            (
                "_fsdp_wrapped_module.model.layers.1._fsdp_wrapped_module._checkpoint_wrapped_module.mlp.up_proj.weight",
                "model.layers.1.mlp.up_proj.weight",
            ),
            (
                "layers.2.input_layernorm.weight",
                "model.layers.2.input_layernorm.weight",
            ),
            ("embed_tokens.weight", "model.embed_tokens.weight"),
            ("norm.weight", "model.norm.weight"),
            ("_orig_mod.norm.weight", "model.norm.weight"),
            ("mtp_layers.0.input_proj.weight", "model.mtp_layers.0.input_proj.weight"),
            ("model.model.norm.weight", "model.norm.weight"),
            ("model.lm_head.weight", "lm_head.weight"),
            ("pretrained_model.model.norm.weight", "model.norm.weight"),
            ("base_model.model.model.norm.weight", "model.norm.weight"),
            ("base_model.model.lm_head.weight", "lm_head.weight"),
            ("v_head.summary.weight", "v_head.summary.weight"),
        ] {
            assert_eq!(published(stored), expected, "{stored}");
        }
    }
}
