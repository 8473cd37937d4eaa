//! Options that several commands share, and what an option's value may be.

pub mod calibration;
pub mod compute;
pub mod evaluation;
pub mod form;
pub mod method;
pub mod model;
pub mod output;
pub mod set;
pub mod values;
