//! Means of items and their standard errors, as lm-evaluation-harness has them.

use super::python_random::PythonRandom;

/// Resamples of a bootstrap: so many with each of so many seeds.
const SEEDS: u64 = 100;
const RESAMPLES: usize = 1000;

/// The mean; NaN of nothing.
pub fn mean(values: &[f64]) -> f64 {
    sum(values.iter().copied()) / values.len() as f64
}

/// The standard error of the mean, by the sample's deviation; `None` of fewer than two values.
pub fn standard_error(values: &[f64]) -> Option<f64> {
    (values.len() > 1).then(|| deviation(values) / (values.len() as f64).sqrt())
}

/// The standard error of exp(-mean) of log-likelihoods, from 100 000 resamples; `None` of fewer than two values.
///
/// The harness draws a thousand resamples with each of a hundred seeds, and so does this.
pub fn perplexity_error(log_likelihoods: &[f64]) -> Option<f64> {
    let count = log_likelihoods.len();
    if count < 2 {
        return None;
    }
    let mut found = Vec::with_capacity(SEEDS as usize * RESAMPLES);
    for seed in 0..SEEDS {
        let mut random = PythonRandom::new(seed);
        for _ in 0..RESAMPLES {
            let total = sum((0..count).map(|_| log_likelihoods[random.choice(count)]));
            found.push((-total / count as f64).exp());
        }
    }
    Some(deviation(&found))
}

/// The standard error of a mean over parts, weighted by their items, from the error and number of items of each part.
pub fn pooled_error(parts: &[(f64, usize)]) -> f64 {
    let items: f64 = sum(parts.iter().map(|(_, items)| *items as f64));
    let squares = sum(parts
        .iter()
        .map(|(error, items)| (*items as f64 - 1.0) * error * error * *items as f64));
    (squares / (items - parts.len() as f64) / items).sqrt()
}

/// The sample's standard deviation.
fn deviation(values: &[f64]) -> f64 {
    let mean = mean(values);
    let squares = sum(values.iter().map(|value| (value - mean) * (value - mean)));
    (squares / (values.len() as f64 - 1.0)).sqrt()
}

fn sum(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |total, value| total + value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of lm-eval 0.4.13.
    #[test]
    fn errors_are_the_harnesss() {
        let values = [1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 1.0];
        assert_eq!(mean(&values), 0.4);
        assert!((standard_error(&values).unwrap() - 0.163_299_316_185_545_2).abs() < 1e-15);
        let error = perplexity_error(&[-1.5, -0.25, -3.0, -2.0, -0.5]).unwrap();
        assert!((error - 2.269_098_424_792_846_7).abs() < 1e-9, "{error}");
        assert_eq!((standard_error(&[1.0]), perplexity_error(&[])), (None, None));
        // Two parts alike have the error of one, over the root of two.
        assert!((pooled_error(&[(0.1, 10), (0.1, 10)]) - 0.1 / 2f64.sqrt()).abs() < 1e-15);
    }
}
