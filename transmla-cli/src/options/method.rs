//! The name of a method.

use clap::ValueEnum;
use transmla_convert::Method;

/// The name of a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum MethodName {
    /// As published: RoRoPE with FreqFold, then balanced joint PCA (arXiv 2502.07864)
    Transmla,
    /// Slots by phase coherence, a PCA in the metric of what the loss notices, then layer-wise reconstruction
    Coherent,
}

impl From<MethodName> for Method {
    fn from(name: MethodName) -> Self {
        match name {
            MethodName::Transmla => Self::Transmla,
            MethodName::Coherent => Self::Coherent,
        }
    }
}
