//! Options on the device and the memory.

use clap::Args;

use super::device::DeviceArguments;
use super::values;
use crate::{system, table};

/// Where it runs and in how much memory.
#[derive(Debug, Args)]
pub struct ComputeArguments {
    #[command(flatten)]
    pub device: DeviceArguments,

    /// Memory limit; weights stay in memory if they take at most half of it, else they are read layer by layer [default:
    /// 1GiB; half of the machine's memory while a model writes its calibration text]
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    max_memory: Option<u64>,
}

/// Enough for what is kept besides weights.
const MAX_MEMORY: u64 = 1 << 30;

impl ComputeArguments {
    /// Bytes that may be used.
    pub fn max_memory(&self) -> u64 {
        self.max_memory.unwrap_or(MAX_MEMORY)
    }

    /// What to say of work that takes more at its peak than was allowed, though its weights are read layer by layer.
    pub fn warning_of(&self, peak: u64) -> Option<String> {
        let allowed = self.max_memory.filter(|allowed| peak > *allowed)?;
        Some(format!(
            "this takes about {} of memory at its peak, more than --max-memory {}: a layer of this model and its calibration text \
             need that much (fewer or shorter samples need less)",
            table::bytes(peak),
            table::bytes(allowed)
        ))
    }

    /// Bytes that may be used while a model writes: its weights are read for every token if they do not fit. Not half of what is
    /// free just now, so that the same command does the same.
    pub fn writing_memory(&self) -> Option<u64> {
        self.max_memory.or_else(|| Some(system::memory()?.total / 2))
    }
}
