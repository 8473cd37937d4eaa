//! The device of the benchmarks.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context, bail};

/// `cpu`, `cuda[:N]` or `wgpu[:N]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    #[default]
    Cpu,
    /// A GPU by index.
    Cuda(usize),
    /// A GPU by index.
    Wgpu(usize),
}

impl Device {
    /// The feature that the device needs.
    pub fn feature(self) -> Option<&'static str> {
        match self {
            Self::Cpu => None,
            Self::Cuda(_) => Some("transmla-cli/cuda"),
            Self::Wgpu(_) => Some("transmla-cli/wgpu"),
        }
    }
}

impl FromStr for Device {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (name, index) = match text.split_once(':') {
            None => (text, 0),
            Some((name, index)) => {
                let index = index.parse();
                (name, index.with_context(|| format!("'{text}' has no device number"))?)
            }
        };
        match name {
            "cpu" if name == text => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(index)),
            "wgpu" => Ok(Self::Wgpu(index)),
            _ => bail!("expected cpu, cuda[:N] or wgpu[:N]"),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu(index) => write!(f, "wgpu:{index}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["cpu", "cuda:1", "wgpu:0"] {
            assert_eq!(text.parse::<Device>().unwrap().to_string(), text);
        }
        assert_eq!("wgpu".parse::<Device>().unwrap(), Device::Wgpu(0));
        for text in ["", "cpu:0", "cuda:x", "tpu"] {
            assert!(text.parse::<Device>().is_err(), "{text}");
        }
        assert_eq!(Device::default(), Device::Cpu);
    }
}
