//! An axis of a picture: positions and round ticks.

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};

/// Ticks that are enough.
const FEW: usize = 4;

/// Most steps between linear ticks.
const MOST_STEPS: f64 = 8.0;

/// Leading digits of logarithmic ticks, from coarse to fine.
const DIGITS: [&[f64]; 4] = [
    &[1.0],
    &[1.0, 2.0, 5.0],
    &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0],
    &[
        1.0, 1.2, 1.4, 1.6, 1.8, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5, 5.0, 6.0, 7.0, 8.0, 9.0,
    ],
];

/// A range of values.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axis {
    /// Smallest and largest value; for a logarithmic axis positive.
    pub values: (f64, f64),
    /// Whether equal distances are equal ratios.
    pub logarithmic: bool,
    /// Whether only whole numbers have ticks.
    pub whole: bool,
}

impl Axis {
    /// From 0 or any other value on; equal distances are equal differences.
    pub fn linear(low: f64, high: f64) -> Self {
        Self {
            values: (low, high),
            logarithmic: false,
            whole: false,
        }
    }

    /// The same for values that are counted.
    pub fn whole(low: f64, high: f64) -> Self {
        Self {
            whole: true,
            ..Self::linear(low, high)
        }
    }

    /// Equal distances are equal ratios.
    pub fn logarithmic(low: f64, high: f64) -> Self {
        Self {
            logarithmic: true,
            ..Self::linear(low, high)
        }
    }

    /// Where a value is, from 0 at the smallest to 1 at the largest.
    pub fn share(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.ln() } else { value };
        let (low, high) = (scale(self.values.0), scale(self.values.1));
        match high > low {
            true => (scale(value) - low) / (high - low),
            false => 0.5,
        }
    }

    /// Round values, ascending.
    pub fn ticks(&self) -> Vec<f64> {
        let (low, high) = self.values;
        if self.logarithmic {
            let fitting = DIGITS.iter().map(|digits| logarithmic_ticks(low, high, digits));
            if let Some(ticks) = fitting.into_iter().find(|ticks| ticks.len() >= FEW) {
                return ticks;
            }
        }
        linear_ticks(low, high, if self.whole { 1.0 } else { 0.0 })
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        (f64::from(start) + self.share(*value) * f64::from(end - start)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        match hint.weight().allow_light_points() {
            true => Vec::new(),
            false => self.ticks(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.values.0..self.values.1
    }
}

fn logarithmic_ticks(low: f64, high: f64, digits: &[f64]) -> Vec<f64> {
    let (first, last) = (low.log10().floor() as i32, high.log10().ceil() as i32);
    (first..=last)
        .flat_map(|exponent| digits.iter().map(move |digit| digit * 10f64.powi(exponent)))
        .filter(|tick| (low..=high).contains(tick))
        .collect()
}

fn linear_ticks(low: f64, high: f64, least: f64) -> Vec<f64> {
    let rough = ((high - low) / MOST_STEPS).max(least);
    if rough <= 0.0 || !rough.is_finite() {
        return vec![low];
    }
    let power = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|digit| digit * power);
    let step = step.into_iter().find(|step| *step >= rough * (1.0 - 1e-9));
    let step = step.unwrap_or(10.0 * power);
    let (first, last) = ((low / step - 1e-9).ceil() as i64, (high / step + 1e-9).floor() as i64);
    (first..=last).map(|count| count as f64 * step).collect()
}

/// A tick's value without trailing zeros.
pub(crate) fn label(tick: f64) -> String {
    let digits = (5 - tick.abs().max(1e-9).log10().floor() as i32).clamp(0, 9) as usize;
    let text = format!("{tick:.digits$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(low: f64, high: f64, logarithmic: bool) -> Axis {
        Axis {
            logarithmic,
            ..Axis::linear(low, high)
        }
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(
            axis(0.0, 66.0, false).ticks(),
            [0.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0]
        );
        assert_eq!(axis(4.0, 120.0, true).ticks(), [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(axis(3.0, 6e5, true).ticks(), [10.0, 100.0, 1e3, 1e4, 1e5]);
        assert_eq!(axis(3.0, 150.0, true).ticks(), [5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(axis(34.0, 34.4, true).ticks().len(), 9);
        assert_eq!(Axis::whole(-0.5, 4.5).ticks(), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(["0.3", "12", "1000000"], [0.3, 12.0, 1e6].map(label)[..]);
    }

    #[test]
    fn ticks_are_few_and_inside() {
        for logarithmic in [false, true] {
            for exponent in -9..=18 {
                for ratio in [1.001, 1.03, 1.3, 2.0, 7.0, 55.0, 3e3, 1e6] {
                    let low = 10f64.powf(f64::from(exponent) / 3.0);
                    let axis = axis(low, low * ratio, logarithmic);
                    let ticks = axis.ticks();
                    assert!((2..=16).contains(&ticks.len()), "{axis:?}: {ticks:?}");
                    assert!(ticks.is_sorted_by(|a, b| a < b), "{axis:?}: {ticks:?}");
                    let inside = |tick: &f64| (-0.001..1.001).contains(&axis.share(*tick));
                    assert!(ticks.iter().all(inside), "{axis:?}: {ticks:?}");
                }
            }
        }
    }
}
