//! Experts that a file has in one tensor for all of a layer, cut into those that checkpoints are published with.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use super::regular::read_regular;
use super::shard::Shard;
use super::stored::{Arrangement, Stored};
use crate::config::ExpertRule;
use crate::config::family::{FAMILIES, FeedForward};
use crate::error::CheckpointError;

/// Gates and up-projections of all experts of a layer, `[experts, 2 width, hidden]`, the gate's rows first.
const GATE_UP: &str = ".mlp.experts.gate_up_proj";

/// Their down-projections, `[experts, hidden, width]`.
const DOWN: &str = ".mlp.experts.down_proj";

/// The router beside them.
const GATE: &str = ".mlp.gate.weight";

/// Far beyond any layer.
const MOST_EXPERTS: usize = 1 << 12;

/// Largest config.json that is read.
const LARGEST_CONFIG: u64 = 16 << 20;

/// How the family of a folder calls its experts, as far as config.json says it.
pub(super) fn rule_in(folder: &Path) -> Option<ExpertRule> {
    let bytes = read_regular(&folder.join("config.json"), LARGEST_CONFIG).ok()?;
    let config: serde_json::Value =
        serde_json::from_slice(bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes)).ok()?;
    let model_type = config.get("model_type")?.as_str()?;
    let family = FAMILIES.iter().find(|family| family.model_type == model_type)?;
    match family.feed_forward {
        FeedForward::Experts(rule) => Some(rule),
        FeedForward::Dense => None,
    }
}

/// Puts the matrices of each expert in the place of a layer's two tensors, under the names of the rule; the router goes with them.
///
/// transformers 5 has them so in memory, and in files with `save_original_format=False`.
///
/// # Errors
/// The two have shapes that do not go together, or a number format that cannot be cut.
pub(super) fn cut(
    tensors: &mut BTreeMap<String, Stored>,
    shards: &[Shard],
    rule: ExpertRule,
) -> Result<(), CheckpointError> {
    let layers = tensors.keys().filter_map(|name| name.strip_suffix(GATE_UP));
    let layers: Vec<String> = layers.map(str::to_owned).collect();
    for layer in layers {
        let names = [GATE_UP, DOWN].map(|name| format!("{layer}{name}"));
        // One without the other is a tensor that no model has, and is refused as such.
        let [Some(gate_up), Some(down)] = names.each_ref().map(|name| tensors.get(name)) else {
            continue;
        };
        let wrong = |problem: String| CheckpointError::File {
            path: shards[gate_up.shard].path().to_path_buf(),
            problem,
        };
        let [count, width] = match (&gate_up.shape[..], &down.shape[..]) {
            ([count, rows, inputs], [experts, outputs, width])
                if count == experts && *rows == 2 * width && inputs == outputs && *count <= MOST_EXPERTS =>
            {
                [*count, *width]
            }
            (one, other) => {
                return Err(wrong(format!(
                    "tensor {} has the shape {one:?} and {} {other:?}, which are not [experts, 2 width, hidden] and [experts, \
                     hidden, width] of at most {MOST_EXPERTS} experts",
                    names[0], names[1]
                )));
            }
        };
        let hidden = down.shape[1];
        let module = format!("{layer}.{}", rule.module);
        let mut cut = Vec::with_capacity(3 * count);
        for expert in 0..count {
            for (part, name, whole, rows) in [
                (rule.names.gate, &names[0], gate_up, 0..width),
                (rule.names.up, &names[0], gate_up, width..2 * width),
                (rule.names.down, &names[1], down, 0..hidden),
            ] {
                let stored = whole.of_expert(name, expert, rows)?.ok_or_else(|| {
                    wrong(format!(
                        "tensor {name} cannot be cut into experts: they share a block of numbers"
                    ))
                })?;
                cut.push((format!("{module}.experts.{expert}.{part}.weight"), stored));
            }
        }
        if cut.iter().any(|(name, _)| tensors.contains_key(name)) {
            continue;
        }
        names.iter().for_each(|name| drop(tensors.remove(name)));
        tensors.extend(cut);
        let router = format!("{module}.gate.weight");
        if !tensors.contains_key(&router)
            && let Some(stored) = tensors.remove(&format!("{layer}{GATE}"))
        {
            tensors.insert(router, stored);
        }
    }
    Ok(())
}

impl Stored {
    /// Some rows of one of many matrices, `[matrices, rows, columns]`; nothing if they do not begin and end where blocks of numbers do.
    fn of_expert(&self, name: &str, expert: usize, rows: Range<usize>) -> Result<Option<Self>, CheckpointError> {
        let Some(mut matrix) = self.rows(name, expert..expert + 1)? else {
            return Ok(None);
        };
        matrix.shape.remove(0);
        match &mut matrix.arrangement {
            Arrangement::Plain => {}
            Arrangement::Strided { strides } => drop(strides.remove(0)),
            _ => return Ok(None),
        }
        matrix.rows(name, rows)
    }
}
