//! Picking a backend at run time.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::CoreError;

/// Where tensors live and are computed: `auto`, `cpu`, `ndarray`, `cuda:N` or `wgpu:N`.
///
/// `auto` takes CUDA if it is compiled in, then wgpu, then the CPU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best backend compiled in.
    #[default]
    Auto,
    /// burn's fast CPU backend.
    Cpu,
    /// burn's ndarray CPU backend (feature `ndarray`).
    NdArray,
    /// An NVIDIA GPU by index (feature `cuda`).
    Cuda(usize),
    /// A GPU through wgpu, by index (feature `wgpu`).
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
    /// [`CoreError::Device`] if the backend was not compiled in.
    pub fn open(self) -> Result<Device, CoreError> {
        match self {
            Self::Auto if cfg!(feature = "cuda") => Self::Cuda(0).open(),
            Self::Auto if cfg!(feature = "wgpu") => Self::Wgpu(0).open(),
            Self::Auto | Self::Cpu => Ok(Device::flex()),
            #[cfg(feature = "ndarray")]
            #[expect(
                deprecated,
                reason = "burn keeps it for now, and whoever asks for the feature wants it"
            )]
            Self::NdArray => Ok(Device::ndarray()),
            #[cfg(feature = "cuda")]
            Self::Cuda(index) => Ok(Device::cuda(index)),
            #[cfg(feature = "wgpu")]
            Self::Wgpu(index) => Ok(Device::wgpu(burn::tensor::DeviceKind::DiscreteGpu(index.into()))),
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
}
