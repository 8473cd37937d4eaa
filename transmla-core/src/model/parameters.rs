//! The projections of a layer under the names that checkpoints give them, all in one form: what a training goes over.

use burn::tensor::Tensor;
use transmla_checkpoint::config::ExpertRule;
use transmla_checkpoint::layout::MlpNames;

use super::attention::kind::Attention;
use super::attention::latent::{LatentAttention, QueryProjection};
use super::experts::Experts;
use super::feed_forward::FeedForwardLayer;
use super::layer::DecoderLayer;
use super::linear::Linear;
use crate::error::CoreError;

/// Which projections of a layer are gone over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Projections {
    /// Those of a latent attention.
    Attention,
    /// Those of the MLP or the experts too.
    All,
}

/// What is done with each: given its name in the layer (`self_attn.o_proj.weight`) and its values, gives those that are put in
/// their place. A bias is a matrix of one column.
pub type EachProjection<'a> = dyn FnMut(&str, Tensor<2>) -> Tensor<2> + 'a;

impl DecoderLayer {
    /// The same with each projection replaced by what the function gives, always in the same order. Norms stay as they are, and so
    /// does an attention that is not latent. Experts that are gone over are in memory then.
    ///
    /// # Errors
    /// An expert cannot be read.
    pub fn map_projections(self, which: Projections, each: &mut EachProjection<'_>) -> Result<Self, CoreError> {
        let attention = match self.attention {
            Attention::Latent(attention) => Attention::Latent(attention.map_projections(each)),
            other => other,
        };
        let mlp = match which {
            Projections::Attention => self.mlp,
            Projections::All => self.mlp.map_projections(each)?,
        };
        Ok(Self { attention, mlp, ..self })
    }
}

impl LatentAttention {
    /// The same with each projection replaced by what the function gives, under names such as `self_attn.kv_b_proj.weight`.
    pub fn map_projections(self, each: &mut EachProjection<'_>) -> Self {
        let mut linear = |name: &str, linear: Linear| linear.map_projections(&format!("self_attn.{name}"), each);
        let q = match self.q {
            QueryProjection::Plain(q) => QueryProjection::Plain(linear("q_proj", q)),
            QueryProjection::Lora { down, norm, up } => QueryProjection::Lora {
                down: linear("q_a_proj", down),
                norm,
                up: linear("q_b_proj", up),
            },
        };
        let q_heads = self.q_heads.map(|mut heads| {
            let [count, rope, width] = heads.rope.dims();
            let rows = Linear::new(heads.rope.reshape([count * rope, width]));
            heads.rope = linear("q_rope_proj", rows).weight.reshape([count, rope, width]);
            heads
        });
        let key_scale = self.key_scale.map(|mut scale| {
            scale.k = linear("k_proj", scale.k);
            scale
        });
        Self {
            q,
            q_heads,
            key_scale,
            kv_down: linear("kv_a_proj_with_mqa", self.kv_down),
            kv_up: self.kv_up.map(|up| linear("kv_b_proj", up)),
            o: linear("o_proj", self.o),
            ..self
        }
    }
}

impl Experts {
    /// Names in the layer of the linear maps, in the order in which [`Self::map`] goes over them.
    fn names(&self) -> Vec<String> {
        let ExpertRule { module, names, .. } = self.rule;
        let mut all = vec![format!("{module}.gate")];
        for index in 0..self.count {
            all.extend(mlp_names(&format!("{module}.experts.{index}"), names));
        }
        if self.shared.is_some() {
            all.push(format!("{module}.shared_expert_gate"));
            all.extend(mlp_names(&format!("{module}.shared_expert"), MlpNames::DENSE));
        }
        all
    }
}

/// Names of an MLP's matrices, in the order in which it goes over them.
fn mlp_names(prefix: &str, names: MlpNames) -> [String; 3] {
    [names.gate, names.up, names.down].map(|name| format!("{prefix}.{name}"))
}

impl FeedForwardLayer {
    /// The same with each projection replaced by what the function gives, under names such as `mlp.down_proj.weight`.
    pub(super) fn map_projections(self, each: &mut EachProjection<'_>) -> Result<Self, CoreError> {
        let names = match &self {
            Self::Dense(_) => mlp_names("mlp", MlpNames::DENSE).to_vec(),
            Self::Experts(experts) => experts.names(),
        };
        let mut names = names.into_iter();
        self.map(&mut |linear| {
            let name = names.next().unwrap_or_default();
            Ok(linear.map_projections(&name, each))
        })
    }
}

impl Linear {
    fn map_projections(self, name: &str, each: &mut EachProjection<'_>) -> Self {
        let [outputs, _] = self.weight.dims();
        Self {
            weight: each(&format!("{name}.weight"), self.weight),
            bias: self.bias.map(|bias| {
                let column = each(&format!("{name}.bias"), bias.reshape([outputs, 1]));
                column.reshape([outputs])
            }),
        }
    }
}
