//! Benchmarks: problems with real dimensions, and the strategies that solve them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`catalogue`] | the problems and strategies by name and size, for `cargo xtask bench` too |
//! | `case` | a problem with its data: checking the strategies against each other, running one |
//! | `copy`, `matmul`, `moment`, `attention`, `attend`, `decode`, `rope`, `lowrank`, `eigen`, `evaluate` | the kinds of problem |
//! | `memory` | how much memory a strategy takes |
//! | `harness` | the main function of the criterion benchmarks |
//! | `gpu` | the program that `cargo xtask gpu-report` starts |
//!
//! Each strategy is checked against the plain reference of its problem before it is timed.

pub mod catalogue;

#[cfg(feature = "run")]
mod attend;
#[cfg(feature = "run")]
mod attention;
#[cfg(feature = "run")]
mod case;
#[cfg(feature = "run")]
mod copy;
#[cfg(feature = "run")]
mod decode;
#[cfg(feature = "run")]
mod eigen;
#[cfg(feature = "run")]
mod evaluate;
#[cfg(feature = "run")]
pub mod gpu;
#[cfg(feature = "run")]
pub mod harness;
#[cfg(feature = "run")]
mod lowrank;
#[cfg(feature = "run")]
mod matmul;
#[cfg(feature = "run")]
mod memory;
#[cfg(feature = "run")]
mod moment;
#[cfg(feature = "run")]
mod numbers;
#[cfg(feature = "run")]
mod rope;
