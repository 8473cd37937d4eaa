//! Names of an MLP's matrices, and what distinguishes one family's experts from another's.

/// Names of an MLP's three matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MlpNames {
    /// Of the matrix whose outputs go through the activation.
    pub gate: &'static str,
    /// Of the matrix whose outputs are multiplied by those.
    pub up: &'static str,
    /// Of the matrix back to the residual stream.
    pub down: &'static str,
}

impl MlpNames {
    /// Of a dense MLP.
    pub const DENSE: Self = Self {
        gate: "gate_proj",
        up: "up_proj",
        down: "down_proj",
    };
    /// Of one of Mixtral's experts.
    pub const EXPERT: Self = Self {
        gate: "w1",
        up: "w3",
        down: "w2",
    };
}

/// How a family's experts are called, and which keys of config.json count for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertRule {
    /// Module of a layer that holds the router (`gate`) and the experts (`experts.N`).
    pub module: &'static str,
    /// Names of an expert's matrices.
    pub names: MlpNames,
    /// Whether `moe_intermediate_size` is the width of an expert, `norm_topk_prob` says that the shares of the chosen are
    /// normalised, and `decoder_sparse_step` and `mlp_only_layers` say which layers have experts. Without it that width is
    /// `intermediate_size`, shares are normalised, and all layers have experts.
    pub by_keys: bool,
    /// Whether every token goes through one more (`shared_expert`), as wide as `shared_expert_intermediate_size`, whose output
    /// is multiplied by the sigmoid of `shared_expert_gate`.
    pub shared: bool,
}

impl ExpertRule {
    /// `block_sparse_moe`, all alike.
    pub(super) const MIXTRAL: Self = Self {
        module: "block_sparse_moe",
        names: MlpNames::EXPERT,
        by_keys: false,
        shared: false,
    };
    /// `mlp`, as keys say.
    pub(super) const QWEN: Self = Self {
        module: "mlp",
        names: MlpNames::DENSE,
        by_keys: true,
        shared: false,
    };
}
