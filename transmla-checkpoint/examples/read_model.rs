//! Reads a model folder: what config.json says, what the weights have, and the numbers of one tensor.

use std::path::PathBuf;

use transmla_checkpoint::layout::check_headers;
use transmla_checkpoint::{Checkpoint, CheckpointError, ModelConfig};

fn main() -> Result<(), CheckpointError> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or("transmla-cli/models/stories260k".into(), PathBuf::from);
    let config = ModelConfig::read(&folder)?;
    let checkpoint = Checkpoint::open(&folder)?;
    check_headers(&config, &checkpoint)?;
    println!(
        "{}: {} layers, {} tensors",
        config.model_type,
        config.num_hidden_layers,
        checkpoint.names().count()
    );
    println!(
        "the KV cache has {} numbers per token and layer",
        config.attention.cache_numbers()
    );
    let norm = checkpoint.values("model.norm.weight", &[config.hidden_size])?;
    println!(
        "the final norm has weights up to {:.3}",
        norm.iter().copied().fold(0.0, f32::max)
    );
    Ok(())
}
