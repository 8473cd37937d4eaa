//! `synth CONFIG OUTPUT DTYPE SHARD_BYTES SEED`: random weights for a config.json (`cargo xtask synth`).

use std::path::Path;

use transmla_checkpoint::synthetic::write_random_model;
use transmla_checkpoint::{RawConfig, StorageDtype};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, output, dtype, shard, seed] = &arguments[..] else {
        return Err("expected CONFIG OUTPUT DTYPE SHARD_BYTES SEED".into());
    };
    let config = RawConfig::parse(&std::fs::read(config)?)?;
    let dtype: StorageDtype = dtype.parse()?;
    let folder = write_random_model(config, Path::new(output), dtype, shard.parse()?, seed.parse()?)?;
    println!("{}", folder.display());
    Ok(())
}
