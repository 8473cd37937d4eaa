//! The text that a conversion is calibrated and evaluated on: datasets, mixes of them, noise, token files.

pub mod corpus;
pub mod default_text;
pub mod mix;
pub mod plan;
pub mod source;
pub mod tasks;
pub mod written;
