//! Continues a text, given as token ids, with a KV cache.

use std::path::PathBuf;

use transmla_core::burn::tensor::Device;
use transmla_core::generate::{Generation, Sampler, Sampling};
use transmla_core::{CoreError, Decoder, KvCache, LayeredModel, Residency};

fn main() -> Result<(), CoreError> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or("transmla-cli/models/stories260k".into(), PathBuf::from);
    let model = Decoder::open(&folder, &Device::flex(), Residency::Loaded)?;
    let mut cache = KvCache::new(model.config(), 64);
    let generation = Generation {
        max_new_tokens: 16,
        stop_ids: &model.config().eos_token_ids,
    };
    let prompt = [1, 403, 407, 261, 378]; // "Once upon a time"
    let sampling = Sampling {
        temperature: 0.8,
        top_p: 0.95,
        ..Sampling::default()
    };
    let mut sampler = Sampler::new(sampling, 42);
    generation.run(&model, &mut cache, &prompt, &mut sampler, &mut |id| {
        println!("{id}");
        Ok::<_, CoreError>(())
    })?;
    println!("{} bytes of KV cache", cache.bytes());
    Ok(())
}
