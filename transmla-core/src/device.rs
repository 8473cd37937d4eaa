//! Picking a backend at run time.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;
#[cfg(feature = "wgpu")]
use burn::tensor::DeviceKind;
#[cfg(any(feature = "cuda", feature = "wgpu"))]
use burn::tensor::DeviceType;

use crate::error::CoreError;

/// Where tensors live and are computed: `auto`, `cpu`, `ndarray`, `cuda:N` or `wgpu:N`.
///
/// `auto` takes an NVIDIA GPU, then a GPU of wgpu, then the CPU: the first that is compiled in and found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best device there is.
    #[default]
    Auto,
    /// burn's fast CPU backend.
    Cpu,
    /// burn's ndarray CPU backend (feature `ndarray`).
    NdArray,
    /// An NVIDIA GPU by index (feature `cuda`).
    Cuda(usize),
    /// An adapter of wgpu, by index (feature `wgpu`): discrete GPUs come first, then integrated and virtual ones, then software.
    Wgpu(usize),
}

impl FromStr for DeviceChoice {
    type Err = CoreError;

    fn from_str(text: &str) -> Result<Self, CoreError> {
        let bad = |problem: String| CoreError::Device {
            requested: text.to_owned(),
            problem,
        };
        let (name, index) = match text.split_once(':') {
            None => (text, 0),
            Some((name, index)) => {
                let parsed = index
                    .parse()
                    .map_err(|_| bad(format!("'{index}' is not a device number")))?;
                (name, parsed)
            }
        };
        match name {
            "auto" => Ok(Self::Auto),
            "cpu" | "flex" => Ok(Self::Cpu),
            "ndarray" => Ok(Self::NdArray),
            "cuda" => Ok(Self::Cuda(index)),
            "wgpu" => Ok(Self::Wgpu(index)),
            _ => Err(bad("expected auto, cpu, ndarray, cuda[:N] or wgpu[:N]".into())),
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::NdArray => f.write_str("ndarray"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

impl DeviceChoice {
    /// The burn device of this choice.
    ///
    /// # Errors
    /// [`CoreError::Device`] if the backend was not compiled in, or this machine has no such device.
    pub fn open(self) -> Result<Device, CoreError> {
        match self {
            Self::Auto => Ok(best_gpu().unwrap_or_else(Device::flex)),
            Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(
                deprecated,
                reason = "burn keeps it for now, and whoever asks for the feature wants it"
            )]
            Self::NdArray => Ok(Device::ndarray()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => self.nth(cuda_devices(), index),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(index) => self.nth(wgpu_devices().0, index),
            #[allow(unreachable_patterns)] // reached only where a backend is left out
            missing => Err(CoreError::Device {
                requested: missing.to_string(),
                problem: format!(
                    "this binary was built without it; rebuild with `--features {}`",
                    match missing {
                        Self::NdArray => "ndarray",
                        Self::Cuda(_) => "cuda",
                        _ => "wgpu",
                    }
                ),
            }),
        }
    }

    /// One of the devices that there are.
    #[cfg(any(feature = "cuda", feature = "wgpu"))]
    fn nth(self, devices: Vec<Device>, index: usize) -> Result<Device, CoreError> {
        let found = devices.len();
        devices.into_iter().nth(index).ok_or_else(|| CoreError::Device {
            requested: self.to_string(),
            problem: match found {
                0 => "no device was found: its driver may be missing".to_owned(),
                _ => format!("{found} found, numbered from 0"),
            },
        })
    }
}

/// The first GPU of the backends compiled in.
fn best_gpu() -> Option<Device> {
    #[cfg(feature = "cuda")]
    if let Some(device) = cuda_devices().into_iter().next() {
        return Some(device);
    }
    #[cfg(feature = "wgpu")]
    {
        let (devices, gpus) = wgpu_devices();
        if let Some(device) = devices.into_iter().take(gpus).next() {
            return Some(device);
        }
    }
    None
}

#[cfg(feature = "cuda")]
fn cuda_devices() -> Vec<Device> {
    Device::enumerate(DeviceType::Cuda).into_iter().collect()
}

/// The adapters of wgpu, the likely fastest first, and how many of them are GPUs; software comes behind those.
#[cfg(feature = "wgpu")]
fn wgpu_devices() -> (Vec<Device>, usize) {
    let found: Vec<Device> = Device::enumerate(DeviceType::Wgpu).into_iter().collect();
    let kinds = [
        DeviceKind::DiscreteGpu as fn(usize) -> DeviceKind,
        DeviceKind::IntegratedGpu,
        DeviceKind::VirtualGpu,
    ];
    let each = kinds
        .into_iter()
        .flat_map(|kind| (0..found.len()).map(move |index| Device::wgpu(kind(index))));
    let mut devices: Vec<Device> = each.filter(|device| found.contains(device)).collect();
    let gpus = devices.len();
    let software = Device::wgpu(DeviceKind::Cpu);
    devices.extend(found.contains(&software).then_some(software));
    let others: Vec<Device> = found.into_iter().filter(|device| !devices.contains(device)).collect();
    devices.extend(others);
    (devices, gpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["auto", "cpu", "ndarray", "cuda:0", "cuda:3", "wgpu:1"] {
            assert_eq!(text.parse::<DeviceChoice>().unwrap().to_string(), text);
        }
        assert_eq!("cuda".parse::<DeviceChoice>().unwrap(), DeviceChoice::Cuda(0));
        assert!("cuda:x".parse::<DeviceChoice>().is_err());
        assert!("tpu".parse::<DeviceChoice>().is_err());
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_backend_left_out_is_named() {
        let error = DeviceChoice::Cuda(0).open().unwrap_err().to_string();
        assert!(error.contains("--features cuda"), "{error}");
    }

    #[cfg(feature = "wgpu")]
    #[test]
    fn a_device_that_is_not_there_is_an_error() {
        let error = DeviceChoice::Wgpu(99).open().unwrap_err().to_string();
        assert!(error.contains("wgpu:99") && error.contains("found"), "{error}");
    }
}
