//! How exactly a mean is known.

/// Standard error of a mean of independent values.
pub fn standard_error(values: &[f64], mean: f64) -> Option<f64> {
    let count = values.len() as f64;
    let squares: f64 = values.iter().map(|value| (value - mean).powi(2)).sum();
    (values.len() > 1).then(|| (squares / (count - 1.0) / count).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_is_of_its_values_spread() {
        // Deviations -1, 0, 1: variance 1, over three values.
        assert_eq!(standard_error(&[1.0, 2.0, 3.0], 2.0), Some((1.0f64 / 3.0).sqrt()));
        assert_eq!(standard_error(&[2.0, 2.0], 2.0), Some(0.0));
        assert_eq!(standard_error(&[2.0], 2.0), None);
    }
}
