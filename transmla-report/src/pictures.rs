//! The pictures of a page.

pub(crate) mod before_after;
pub(crate) mod curves;
pub(crate) mod phases;
pub(crate) mod rotary;
pub(crate) mod trade_off;

/// Width of a picture that shares a row of a page with another, in pixels; a phone shows it a little smaller.
const WIDTH: f64 = 430.0;
