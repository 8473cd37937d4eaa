//! How much memory there is to use, and how much was used.

use transmla_core::model::model_tensors;
use transmla_core::{ModelConfig, Residency};
use transmla_eval::EvalOptions;

/// Most bytes of hidden states kept at once, however much memory is allowed.
const MOST_STATE_BYTES: u64 = 256 << 20;

/// Weights are kept if they take at most half of the allowed memory.
pub fn residency(config: &ModelConfig, max_memory: u64) -> Residency {
    let numbers: u64 = model_tensors(config).iter().map(|spec| spec.elements() as u64).sum();
    match numbers * size_of::<f32>() as u64 <= max_memory / 2 {
        true => Residency::Loaded,
        false => Residency::Streamed,
    }
}

/// A quarter of the allowed memory for hidden states.
pub fn eval_options(batch_size: usize, max_memory: u64) -> EvalOptions {
    EvalOptions {
        batch_size,
        state_bytes: (max_memory / 4).min(MOST_STATE_BYTES),
    }
}

/// The most memory that this process has had in use so far, in bytes, where the system tells.
pub fn peak_bytes() -> Option<u64> {
    peak_in(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn peak_in(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_high_water_mark() {
        assert_eq!(peak_in("Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t 1 kB\n"), Some(2 << 20));
        assert_eq!(peak_in("Name:\tx\n"), None);
    }
}
