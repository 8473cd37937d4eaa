//! What the formats share.

use half::f16;

/// The scale at the beginning of some bytes, 0 if there are none.
pub(super) fn read_half(bytes: &[u8]) -> f32 {
    match bytes {
        [low, high, ..] => f16::from_le_bytes([*low, *high]).to_f32(),
        _ => 0.0,
    }
}

/// One over a number, or 0.
pub(super) fn inverse(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.recip() }
}

/// The number that is farthest from 0.
pub(super) fn farthest(values: &[f32]) -> f32 {
    values
        .iter()
        .fold(0.0, |most: f32, x| if x.abs() > most.abs() { *x } else { most })
}
