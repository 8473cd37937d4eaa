//! Options on the device and the memory.

use clap::Args;
use transmla_core::DeviceChoice;

use super::values;

/// Where it runs and in how much memory.
#[derive(Debug, Args)]
pub struct ComputeArguments {
    /// Where to compute: auto, cpu, ndarray, cuda:N or wgpu:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    pub device: DeviceChoice,

    /// Keep weights in memory if they take at most half of this, else read them layer by layer
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = values::size)]
    pub max_memory: u64,
}
