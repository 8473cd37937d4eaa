//! The option that names a device.

use std::fmt;

use burn::tensor::Device;
use clap::Args;
use transmla_core::{CoreError, DeviceChoice};

/// Where it runs.
#[derive(Debug, Args)]
pub struct DeviceArguments {
    /// Where to compute: auto, cpu, ndarray, cuda:N or wgpu:N
    #[arg(long, value_name = "DEVICE", default_value = "auto")]
    device: DeviceChoice,
}

impl DeviceArguments {
    /// The device that was chosen.
    ///
    /// # Errors
    /// There is none of its kind, or the binary was built without it.
    pub fn open(&self) -> Result<Device, CoreError> {
        self.device.open()
    }
}

impl fmt::Display for DeviceArguments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.device.fmt(f)
    }
}
