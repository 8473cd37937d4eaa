//! Benchmarks: problems of realistic dimensions, and the strategies that solve them.
//!
//! | module | contents |
//! | --- | --- |
//! | [`catalogue`] | names and sizes of problems and strategies, also for `cargo xtask bench` |
//! | `kinds` | the kinds of problem, with their data |
//! | `case` | their common trait: checking the strategies against each other, running one |
//! | `memory` | peak memory of a strategy |
//! | `harness` | the main function of the criterion benchmarks |
//! | `gpu` | the program that `cargo xtask gpu-report` starts |
//!
//! Each strategy is checked against the plain reference of its problem before it is timed.

pub mod catalogue;

#[cfg(feature = "run")]
mod case;
#[cfg(feature = "run")]
pub mod gpu;
#[cfg(feature = "run")]
pub mod harness;
#[cfg(feature = "run")]
mod kinds;
#[cfg(feature = "run")]
mod memory;
#[cfg(feature = "run")]
mod numbers;
