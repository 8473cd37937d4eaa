//! A layer whose heads are in groups with a latent each: every group is solved as a layer that has no other heads, and which heads go
//! together is chosen for the least error.

use std::collections::HashMap;

use burn::tensor::Tensor;
use faer::{Mat, MatRef};
use transmla_core::LayeredModel;
use transmla_core::model::attention::{Attention, GroupedAttention, LatentAttention, QueryProjection};
use transmla_core::model::{Linear, Rotary};
use transmla_lowrank::QueryFactors;

use crate::layer::factors::Queries;
use crate::layer::weights::HostWeights;
use crate::solve::coherent::closed_form::{ClosedForm, LayerProblem, closed_form, closed_form_of};
use crate::solve::coherent::example::{Example, output_error};
use crate::solve::queries::factorise_queries;
use crate::spec::error::ConvertError;
use crate::spec::plan::Plan;

/// Groups that are solved in a layer to find those that err least, unless it has more.
pub(crate) const MOST_SOLVED: usize = 24;

/// The closed form of a layer, whatever its heads share.
pub(crate) fn solve_layer(problem: &LayerProblem<'_>) -> Result<ClosedForm, ConvertError> {
    if !problem.plan.latent().is_grouped() {
        return closed_form(problem);
    }
    let mut groups = Groups::new(problem)?;
    let partition = groups.partition()?;
    groups.assemble(&partition)
}

/// A group in closed form, and the error that it leaves if all others are exact.
struct Solved {
    form: ClosedForm,
    error: f64,
    power: f64,
}

struct Groups<'a> {
    problem: &'a LayerProblem<'a>,
    /// That of one group.
    plan: Plan,
    weights: HostWeights,
    queries: Queries,
    /// By the key heads in them, ascending.
    solved: HashMap<Vec<usize>, Solved>,
    /// For each example to choose on, what its output is more than the original attention gives to the same inputs.
    beyond: Vec<Tensor<2>>,
    /// With the original's frequencies.
    rotary: Rotary,
}

impl<'a> Groups<'a> {
    fn new(problem: &'a LayerProblem<'a>) -> Result<Self, ConvertError> {
        let (plan, layer) = (problem.plan, problem.layer);
        let weights = HostWeights::read(problem.source, plan, layer, problem.keys)?;
        let queries = factorise_queries(plan, layer, weights.q.as_ref(), problem.moment)?;
        let rope = plan.source().rope.of(layer);
        let rotary = Rotary::new(rope, problem.rotary.positions(), problem.source.device());
        let mut groups = Self {
            problem,
            plan: plan.of_group(),
            weights,
            queries,
            solved: HashMap::new(),
            beyond: Vec::new(),
            rotary,
        };
        let beyond = |example: &Example| example.output.clone() - groups.original(problem.attention, example);
        groups.beyond = problem.choice.iter().map(beyond).collect();
        Ok(groups)
    }

    /// What attention of the original gives to the inputs of an example.
    fn original(&self, attention: &GroupedAttention, example: &Example) -> Tensor<2> {
        let attention = Attention::Grouped(attention.clone());
        attention.forward(example.inputs.clone(), example.batch, &self.rotary, None)
    }

    /// The key heads of each group: heads that follow each other, then swapped between two groups as long as that makes the error less.
    fn partition(&mut self) -> Result<Vec<Vec<usize>>, ConvertError> {
        let heads = self.problem.plan.grouped().num_key_value_heads;
        let size = heads / self.problem.plan.latent().latent_groups;
        let all: Vec<usize> = (0..heads).collect();
        let mut best: Vec<Vec<usize>> = all.chunks(size).map(<[usize]>::to_vec).collect();
        let mut error = self.error(&best)?;
        if size == 1 {
            // Heads alone change places in vain.
            return Ok(best);
        }
        loop {
            let mut better = None;
            for swapped in swaps(&best) {
                let new = swapped.iter().filter(|group| !self.solved.contains_key(*group)).count();
                if self.solved.len() + new > MOST_SOLVED.max(best.len()) {
                    continue;
                }
                let found = self.error(&swapped)?;
                if found < better.as_ref().map_or(error, |(least, _)| *least) {
                    better = Some((found, swapped));
                }
            }
            match better {
                None => return Ok(best),
                Some((least, swapped)) => (error, best) = (least, swapped),
            }
        }
    }

    /// The errors of groups together.
    fn error(&mut self, partition: &[Vec<usize>]) -> Result<f64, ConvertError> {
        let mut sum = 0.0;
        for heads in partition {
            if !self.solved.contains_key(heads) {
                let solved = self.solve(heads)?;
                self.solved.insert(heads.clone(), solved);
            }
            sum += self.solved.get(heads).map_or(0.0, |solved| solved.error);
        }
        Ok(sum)
    }

    /// The group of these key heads.
    fn solve(&self, heads: &[usize]) -> Result<Solved, ConvertError> {
        let (problem, order) = (self.problem, Order::of(self.problem.plan, heads));
        let own = GroupedAttention {
            q: problem.attention.q.clone().select_outputs(&order.queries),
            k: problem.attention.k.clone().select_outputs(&order.keys),
            v: problem.attention.v.clone().select_outputs(&order.keys),
            o: Linear::new(problem.attention.o.clone().select_inputs(&order.queries).weight),
            query_heads: self.plan.source().num_attention_heads,
            key_heads: heads.len(),
            q_norm: None,
            k_norm: None,
            parameters: problem.attention.parameters,
        };
        let aim = |(example, beyond): (&Example, &Tensor<2>)| Example {
            output: self.original(&own, example) + beyond.clone(),
            ..example.clone()
        };
        let choice: Vec<Example> = problem.choice.iter().zip(&self.beyond).map(aim).collect();
        let weights = HostWeights {
            q: rows(self.weights.q.as_ref(), &order.queries),
            k: rows(self.weights.k.as_ref(), &order.keys),
            v: rows(self.weights.v.as_ref(), &order.keys),
        };
        let queries = match &self.queries {
            Queries::Full(all) => Queries::Full(rows(all.as_ref(), &order.queries)),
            Queries::LowRank { factors, bias } => Queries::LowRank {
                factors: QueryFactors {
                    up: rows(factors.up.as_ref(), &order.queries),
                    ..factors.clone()
                },
                bias: bias
                    .as_ref()
                    .map(|bias| order.queries.iter().map(|row| bias[*row]).collect()),
            },
        };
        let of_group = LayerProblem {
            plan: &self.plan,
            attention: &own,
            choice: &choice,
            ..*problem
        };
        let form = closed_form_of(&of_group, &weights, &queries)?;
        let (error, power) = output_error(&form.attention, &choice, problem.rotary)?;
        Ok(Solved { form, error, power })
    }

    /// The groups as one layer, their heads in the order of the groups.
    fn assemble(mut self, partition: &[Vec<usize>]) -> Result<ClosedForm, ConvertError> {
        let (plan, layer) = (self.problem.plan, self.problem.layer);
        let solved: Option<Vec<Solved>> = partition.iter().map(|heads| self.solved.remove(heads)).collect();
        let solved = solved
            .filter(|solved| !solved.is_empty())
            .ok_or(ConvertError::Activations { layer })?;
        let count = solved.len() as f64;
        let of_each = |numbers: &dyn Fn(&Solved) -> f64| solved.iter().map(numbers).sum::<f64>();
        let attentions: Vec<&LatentAttention> = solved.iter().map(|group| &group.form.attention).collect();
        let whole = LatentAttention {
            q: joined_queries(&attentions),
            q_heads: None,
            key_scale: None,
            kv_down: stacked(attentions.iter().map(|it| &it.kv_down)),
            kv_norm: None,
            latent_map: None,
            kv_up: Some(stacked(attentions.iter().filter_map(|it| it.kv_up.as_ref()))),
            o: Linear {
                weight: Tensor::cat(attentions.iter().map(|it| it.o.weight.clone()).collect(), 1),
                bias: self.problem.attention.o.bias.clone(),
            },
            heads: plan.source().num_attention_heads,
            shape: plan.latent().clone(),
            parameters: plan.converted().attention_parameters(layer),
        };
        // Each score is divided by the root of its query's width.
        let widened = self.plan.converted().score_scale / plan.converted().score_scale;
        let attention = match plan.latent().tied {
            true => tied(whole, plan.grouped().head_dim, widened),
            false => whole,
        };
        Ok(ClosedForm {
            attention,
            kept_energy: of_each(&|group| group.form.kept_energy) / count,
            key_error: None,
            cost: of_each(&|group| group.error) / of_each(&|group| group.power).max(f64::MIN_POSITIVE),
            spectrum: sums(solved.iter().map(|group| group.form.spectrum.as_slice())),
            slot_energy: means(solved.iter().map(|group| group.form.slot_energy.as_slice())),
        })
    }
}

/// Where the rows of some key heads and of their query heads are.
struct Order {
    queries: Vec<usize>,
    keys: Vec<usize>,
}

impl Order {
    fn of(plan: &Plan, heads: &[usize]) -> Self {
        let shape = plan.head_shape();
        let shared = shape.query_heads / shape.key_heads;
        let of_heads = |width: usize| {
            heads
                .iter()
                .flat_map(move |head| head * width..(head + 1) * width)
                .collect()
        };
        Self {
            queries: of_heads(shared * shape.head_dim),
            keys: of_heads(shape.head_dim),
        }
    }
}

/// All partitions that differ by one exchange of two heads.
fn swaps(partition: &[Vec<usize>]) -> Vec<Vec<Vec<usize>>> {
    let mut all = Vec::new();
    for first in 0..partition.len() {
        for second in first + 1..partition.len() {
            for i in 0..partition[first].len() {
                for j in 0..partition[second].len() {
                    let mut swapped = partition.to_vec();
                    let (one, other) = (partition[first][i], partition[second][j]);
                    (swapped[first][i], swapped[second][j]) = (other, one);
                    swapped[first].sort_unstable();
                    swapped[second].sort_unstable();
                    all.push(swapped);
                }
            }
        }
    }
    all
}

fn rows(matrix: MatRef<'_, f64>, order: &[usize]) -> Mat<f64> {
    Mat::from_fn(order.len(), matrix.ncols(), |i, j| matrix[(order[i], j)])
}

/// Outputs of some maps of the same inputs, one after the other.
fn stacked<'a>(parts: impl Iterator<Item = &'a Linear> + Clone) -> Linear {
    let biases: Option<Vec<Tensor<1>>> = parts.clone().map(|part| part.bias.clone()).collect();
    Linear {
        weight: Tensor::cat(parts.map(|part| part.weight.clone()).collect(), 0),
        bias: biases.map(|biases| Tensor::cat(biases, 0)),
    }
}

/// The queries of all groups; a query latent is the same for all of them.
fn joined_queries(attentions: &[&LatentAttention]) -> QueryProjection {
    let last = |q: &QueryProjection| match q {
        QueryProjection::Plain(up) | QueryProjection::Lora { up, .. } => up.clone(),
    };
    let parts: Vec<Linear> = attentions.iter().map(|attention| last(&attention.q)).collect();
    let up = stacked(parts.iter());
    match attentions.first().map(|attention| &attention.q) {
        Some(QueryProjection::Lora { down, norm, .. }) => QueryProjection::Lora {
            down: down.clone(),
            norm: norm.clone(),
            up,
        },
        _ => QueryProjection::Plain(up),
    }
}

/// The same attention with `kv_b_proj` taken into queries and output, and queries times `factor`: with q'ₕ = Kₕᵀ qₕ scores are products
/// of queries and latents, and with O'ₕ = Oₕ Vₕ the output reads sums of latents. `width` is d, which is d_v.
fn tied(attention: LatentAttention, width: usize, factor: f64) -> LatentAttention {
    let LatentAttention {
        q,
        kv_up: Some(up),
        o,
        shape,
        heads,
        ..
    } = attention.clone()
    else {
        return attention;
    };
    let (rank, rope) = (shape.kv_lora_rank, shape.qk_rope_head_dim);
    let up = up.weight.reshape([heads, 2 * width, rank]);
    let keys = up.clone().narrow(1, 0, width).swap_dims(1, 2); // [H, r, d]
    let values = up.narrow(1, width, width);
    let through = |matrix: Tensor<2>| {
        let columns = matrix.dims()[1];
        let of_heads = matrix.reshape([heads, width + rope, columns]);
        let plain = keys.clone().matmul(of_heads.clone().narrow(1, 0, width));
        let both = Tensor::cat(vec![plain, of_heads.narrow(1, width, rope)], 1);
        both.reshape([heads * (rank + rope), columns]).mul_scalar(factor)
    };
    let absorbed = |linear: Linear| Linear {
        weight: through(linear.weight),
        bias: linear.bias.map(|bias| {
            let rows = bias.dims()[0];
            let column = through(bias.reshape([rows, 1]));
            let rows = column.dims()[0];
            column.reshape([rows])
        }),
    };
    let hidden = o.weight.dims()[0];
    let of_heads = o.weight.reshape([hidden, heads, width]).swap_dims(0, 1); // [H, hidden, d_v]
    let output = of_heads.matmul(values).swap_dims(0, 1).reshape([hidden, heads * rank]);
    LatentAttention {
        q: match q {
            QueryProjection::Plain(q) => QueryProjection::Plain(absorbed(q)),
            QueryProjection::Lora { down, norm, up } => QueryProjection::Lora {
                down,
                norm,
                up: absorbed(up),
            },
        },
        kv_up: None,
        o: Linear {
            weight: output,
            bias: o.bias,
        },
        ..attention
    }
}

/// Entry by entry; what is shorter ends in zeros.
fn sums<'a>(lists: impl Iterator<Item = &'a [f64]>) -> Vec<f64> {
    let mut all = Vec::new();
    for list in lists {
        all.resize(list.len().max(all.len()), 0.0);
        all.iter_mut().zip(list).for_each(|(sum, value)| *sum += value);
    }
    all
}

/// Entry by entry, of matrices of one shape.
fn means<'a>(matrices: impl Iterator<Item = &'a [Vec<f64>]> + Clone) -> Vec<Vec<f64>> {
    let count = matrices.clone().count().max(1) as f64;
    let lines = matrices.clone().map(<[Vec<f64>]>::len).max().unwrap_or(0);
    let line = |index: usize| {
        let lines = matrices.clone().filter_map(|matrix| matrix.get(index));
        let sums = sums(lines.map(Vec::as_slice));
        sums.into_iter().map(|sum| sum / count).collect()
    };
    (0..lines).map(line).collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Distribution};
    use transmla_core::config::{LatentConfig, RopeConfig, RopeLayout, RopeScaling};
    use transmla_core::kernels::AttentionParameters;

    use super::*;

    const HIDDEN: usize = 10;

    fn random<const D: usize>(shape: [usize; D]) -> Tensor<D> {
        Tensor::random(shape, Distribution::Normal(0.0, 0.5), &Device::flex())
    }

    /// 4 heads of 6 in two groups with latents of `rank` numbers and rotary keys of 4, with biases.
    fn attention(rank: usize, low_rank: bool) -> LatentAttention {
        let biased = |rows, columns| Linear {
            weight: random([rows, columns]),
            bias: Some(random([rows])),
        };
        LatentAttention {
            q: match low_rank {
                false => QueryProjection::Plain(biased(4 * 10, HIDDEN)),
                true => QueryProjection::Lora {
                    down: Linear::new(random([7, HIDDEN])),
                    norm: None,
                    up: biased(4 * 10, 7),
                },
            },
            q_heads: None,
            key_scale: None,
            kv_down: biased(2 * (rank + 4), HIDDEN),
            kv_norm: None,
            latent_map: None,
            kv_up: Some(Linear::new(random([4 * 12, rank]))),
            o: biased(HIDDEN, 4 * 6),
            heads: 4,
            shape: LatentConfig {
                q_lora_rank: None,
                latent_groups: 2,
                tied: false,
                kv_lora_rank: rank,
                qk_nope_head_dim: 6,
                qk_rope_head_dim: 4,
                v_head_dim: 6,
                latent_norm_eps: None,
                biases: true,
                key_norm_heads: None,
                key_norm_width: None,
            },
            parameters: AttentionParameters::of_width(10),
        }
    }

    #[test]
    fn tied_is_the_same_function_at_any_rank() {
        let rope = RopeConfig {
            theta: 1e4,
            dim: 4,
            rotated: 4,
            layout: RopeLayout::HalfSplit,
            scaling: RopeScaling::Default,
        };
        let rotary = Rotary::new(&rope, 0..9, &Device::flex());
        let x = random([2 * 9, HIDDEN]);
        for (rank, low_rank) in [(3, false), (6, true), (9, false)] {
            let plain = attention(rank, low_rank);
            let width = (rank + 4) as f64;
            let other = LatentAttention {
                shape: LatentConfig {
                    tied: true,
                    qk_nope_head_dim: rank,
                    v_head_dim: rank,
                    ..plain.shape.clone()
                },
                parameters: AttentionParameters::of_width(rank + 4),
                ..plain.clone()
            };
            let found = tied(other, 6, (width / 10.0).sqrt());
            assert!(found.kv_up.is_none());
            let of = |attention| Attention::Latent(attention).forward(x.clone(), 2, &rotary, None);
            let apart: f32 = (of(found) - of(plain)).abs().max().into_scalar();
            assert!(apart < 1e-4, "{rank}: {apart}");
        }
    }

    #[test]
    fn exchanges_reach_every_partition_of_four_heads_in_pairs() {
        let start = vec![vec![0, 1], vec![2, 3]];
        let mut found: Vec<Vec<Vec<usize>>> = swaps(&start)
            .into_iter()
            .map(|mut partition| {
                partition.sort();
                partition
            })
            .collect();
        found.sort();
        found.dedup();
        assert_eq!(
            found,
            [[[0, 2], [1, 3]], [[0, 3], [1, 2]]].map(|two| two.map(|pair| pair.to_vec()).to_vec())
        );
    }

    #[test]
    fn figures_of_groups_are_brought_together() {
        assert_eq!(sums([&[3.0, 1.0][..], &[2.0][..]].into_iter()), [5.0, 1.0]);
        let [one, other] = [vec![vec![1.0, 0.0]], vec![vec![0.0, 0.5]]];
        assert_eq!(means([one.as_slice(), other.as_slice()].into_iter()), [[0.5, 0.25]]);
    }
}
