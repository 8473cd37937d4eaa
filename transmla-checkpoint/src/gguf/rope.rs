//! From the factors of rotary frequencies, which a file has as a tensor, back to the settings that they were made of.

use std::f64::consts::TAU;

use serde_json::{Map, Value, json};

/// What Llama 3.1 and later were scaled from.
const ORIGINAL_CONTEXT: f64 = 8192.0;
const LOW: f64 = 1.0;
const HIGH: f64 = 4.0;

/// Largest relative error of a factor: files have them in single precision.
const TOLERANCE: f64 = 1e-4;

/// The `rope_scaling` that divides frequencies of this base by these factors; nothing if none of the known ones does.
///
/// Llama 3's has one ramp between frequencies that are kept and frequencies that are divided by the whole factor. Two points on
/// the ramp say where it begins and ends in turns within the original context; of the three numbers the context may be chosen.
/// Settings are equal if they give these factors.
pub(super) fn scaling(factors: &[f32], theta: f64) -> Option<Option<Value>> {
    let factors: Vec<f64> = factors.iter().map(|factor| f64::from(*factor)).collect();
    if factors.is_empty()
        || factors
            .iter()
            .any(|factor| !factor.is_finite() || *factor < 1.0 - TOLERANCE)
    {
        return None;
    }
    let most = factors.iter().copied().fold(1.0, f64::max);
    if most <= 1.0 + TOLERANCE {
        return Some(None);
    }
    let dim = 2.0 * factors.len() as f64;
    let turns = |j: usize| ORIGINAL_CONTEXT * theta.powf(-2.0 * j as f64 / dim) / TAU;
    // How much of a frequency is kept, on the ramp.
    let kept = |factor: f64| (1.0 / factor - 1.0 / most) / (1.0 - 1.0 / most);
    let ramp: Vec<(f64, f64)> = (0..factors.len())
        .map(|j| (turns(j), kept(factors[j])))
        .filter(|(_, kept)| *kept > TOLERANCE && *kept < 1.0 - TOLERANCE)
        .collect();
    let fitted = match ramp[..] {
        // Without a point on it, the ramp may be anywhere in between.
        [] => (0..factors.len())
            .find(|j| factors[*j] > 1.0 + TOLERANCE)
            .map(|j| [turns(j), if j == 0 { HIGH * turns(0) } else { turns(j - 1) }]),
        // With one, as steep as Llama's.
        [(turns, kept)] => {
            let low = turns / (1.0 + kept * (HIGH / LOW - 1.0));
            Some([low, low * HIGH / LOW])
        }
        [one, .., other] => {
            let slope = (one.1 - other.1) / (one.0 - other.0);
            let low = one.0 - one.1 / slope;
            Some([low, low + 1.0 / slope])
        }
    };
    let rounded = fitted.map(|bounds| bounds.map(|bound| (bound * 100.0).round() / 100.0));
    let holds = |[low, high]: &[f64; 2]| {
        high > low
            && factors.iter().enumerate().all(|(j, factor)| {
                let share = ((turns(j) - low) / (high - low)).clamp(0.0, 1.0);
                let made = 1.0 / ((1.0 - share) / most + share);
                (made / factor - 1.0).abs() < TOLERANCE
            })
    };
    let [low, high] = [Some([LOW, HIGH]), rounded, fitted].into_iter().flatten().find(holds)?;
    // As it was written by people, if it is a number of theirs in single precision.
    let factor = (most * 1000.0).round() / 1000.0;
    let mut found = Map::new();
    found.insert("rope_type".into(), json!("llama3"));
    found.insert("factor".into(), json!(factor));
    found.insert("low_freq_factor".into(), json!(low));
    found.insert("high_freq_factor".into(), json!(high));
    found.insert(
        "original_max_position_embeddings".into(),
        json!(ORIGINAL_CONTEXT as u64),
    );
    Some(Some(Value::Object(found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As llama.cpp's converter writes them (`Llama3RopeScaling`).
    fn factors(factor: f64, low: f64, high: f64, context: f64, theta: f64, dim: usize) -> Vec<f32> {
        (0..dim / 2)
            .map(|j| {
                let wavelength = TAU * theta.powf(2.0 * j as f64 / dim as f64);
                let made = if wavelength < context / high {
                    1.0
                } else if wavelength > context / low {
                    factor
                } else {
                    let smooth = (context / wavelength - low) / (high - low);
                    1.0 / ((1.0 - smooth) / factor + smooth)
                };
                made as f32
            })
            .collect()
    }

    #[test]
    fn llama3_is_recovered() {
        for (factor, low, high, context, dim) in [
            (8.0, 1.0, 4.0, 8192.0, 128),
            (32.0, 1.0, 4.0, 8192.0, 64),
            (4.0, 1.0, 4.0, 8192.0, 8),
            (8.0, 2.0, 6.0, 8192.0, 128),
            (8.0, 1.0, 4.0, 4096.0, 128),
            (8.0, 1.0, 4.0, 64.0, 16),
            (8.0, 1.0, 1.5, 64.0, 16),
        ] {
            let given = factors(factor, low, high, context, 5e5, dim);
            let found = scaling(&given, 5e5).unwrap().unwrap();
            let number = |key: &str| found[key].as_f64().unwrap();
            // Another context with other bounds is the same ramp.
            let of_found = factors(
                number("factor"),
                number("low_freq_factor"),
                number("high_freq_factor"),
                number("original_max_position_embeddings"),
                5e5,
                dim,
            );
            for (one, other) in given.iter().zip(&of_found) {
                assert!((one / other - 1.0).abs() < 2e-4, "{found}: {one} {other}");
            }
            if context == ORIGINAL_CONTEXT {
                assert_eq!(
                    [number("factor"), number("low_freq_factor"), number("high_freq_factor")],
                    [factor, low, high]
                );
            }
        }
    }

    #[test]
    fn what_is_no_ramp_is_not_taken_for_one() {
        assert_eq!(scaling(&[1.0; 8], 1e4), Some(None));
        assert_eq!(scaling(&[], 1e4), None);
        assert_eq!(scaling(&[1.0, f32::NAN], 1e4), None);
        assert_eq!(scaling(&[0.5, 1.0], 1e4), None);
        // The factors of "longrope" rise without an end of the ramp.
        let long: Vec<f32> = (0..48).map(|j| 1.0 + 0.05 * (j * j) as f32).collect();
        assert_eq!(scaling(&long, 1e4), None);
    }
}
