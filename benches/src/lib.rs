//! Benchmarks: problems with real dimensions, and the strategies that solve them.
//!
//! | module | what it holds |
//! | --- | --- |
//! | [`catalogue`] | the problems and strategies by name and size, for `cargo xtask bench` too |
//! | `kinds` | the kinds of problem, with their data |
//! | `case` | what they have in common: checking the strategies against each other, running one |
//! | `memory` | how much memory a strategy takes |
//! | `harness` | the main function of the criterion benchmarks |
//!
//! Each strategy is checked against the plain reference of its problem before it is timed.

pub mod catalogue;

#[cfg(feature = "run")]
mod case;
#[cfg(feature = "run")]
pub mod harness;
#[cfg(feature = "run")]
mod kinds;
#[cfg(feature = "run")]
mod memory;
#[cfg(feature = "run")]
mod numbers;
