//! Options that several commands share, and what an option's value may be.

pub mod budget;
pub mod cache;
pub mod calibration;
pub mod compute;
pub mod conversion;
pub mod device;
pub mod evaluation;
pub mod form;
pub mod messages;
pub mod model;
pub mod model_name;
pub mod output;
pub mod prompt;
pub mod sampling;
pub mod set;
pub mod source;
pub mod tasks;
pub mod values;
pub mod windows;
