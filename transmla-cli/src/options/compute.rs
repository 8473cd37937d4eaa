//! Options on the device and the memory.

use clap::Args;

use super::device::DeviceArguments;
use super::values;

/// Where it runs and in how much memory.
#[derive(Debug, Args)]
pub struct ComputeArguments {
    #[command(flatten)]
    pub device: DeviceArguments,

    /// Memory limit; weights stay in memory if they take at most half of it, else they are read layer by layer
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = values::size)]
    pub max_memory: u64,
}
