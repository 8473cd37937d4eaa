//! Mixing calibration samples of several texts.

use transmla_checkpoint::TokenBatch;

use crate::error::CalibError;

/// Divides a number of samples among texts in proportion to their weights; every text gets at least one.
///
/// Samples left over after rounding down go to the largest remainders, the first text first where they are equal.
///
/// # Errors
/// [`CalibError::Mix`] if there is no weight, a weight is not a positive number, or there are fewer samples than texts.
pub fn divide_samples(samples: usize, weights: &[f64]) -> Result<Vec<usize>, CalibError> {
    let refuse = |problem: String| Err(CalibError::Mix { problem });
    if let Some(weight) = weights.iter().find(|weight| !(**weight > 0.0 && weight.is_finite())) {
        return refuse(format!("the weight {weight} is not a positive number"));
    }
    if weights.is_empty() || samples < weights.len() {
        return refuse(format!(
            "{} texts cannot share {samples} samples; use samples = {}",
            weights.len(),
            weights.len().max(1)
        ));
    }
    let whole: f64 = weights.iter().sum();
    let exact: Vec<f64> = weights.iter().map(|weight| weight / whole * samples as f64).collect();
    let mut shares: Vec<usize> = exact.iter().map(|exact| (*exact as usize).max(1)).collect();
    // At least one each may be too many, rounding down too few. While there are too many, some text has two.
    while shares.iter().sum::<usize>() > samples {
        let most = (0..shares.len()).max_by_key(|i| shares[*i]);
        most.into_iter().for_each(|i| shares[i] -= 1);
    }
    while shares.iter().sum::<usize>() < samples {
        let missing = |i: usize| exact[i] - shares[i] as f64;
        let neediest = (0..shares.len())
            .rev()
            .max_by(|a, b| missing(*a).total_cmp(&missing(*b)));
        neediest.into_iter().for_each(|i| shares[i] += 1);
    }
    Ok(shares)
}

/// Interleaves the samples of several texts so that every stretch of the batch has about the proportions of the whole.
///
/// `run` samples of a text stay together, so that whoever joins so many has sequences of one text; samples that make no whole
/// run come at the end.
///
/// # Errors
/// [`CalibError::Mix`] if there are no samples, or samples differ in length.
pub fn interleave(texts: &[TokenBatch], run: usize) -> Result<TokenBatch, CalibError> {
    let run = run.max(1);
    let refuse = |problem: String| Err(CalibError::Mix { problem });
    let Some(sequence) = texts.first().map(TokenBatch::sequence) else {
        return refuse("there are no samples".into());
    };
    if let Some(other) = texts.iter().map(TokenBatch::sequence).find(|other| *other != sequence) {
        return refuse(format!("there are samples of {sequence} and of {other} tokens"));
    }
    let mut order: Vec<(f64, usize, usize)> = Vec::new();
    for (text, batch) in texts.iter().enumerate() {
        let runs = batch.batch() / run;
        let position = |row: usize| match row / run {
            index if index < runs => (index as f64 + 0.5) / runs as f64,
            _ => 1.0,
        };
        order.extend((0..batch.batch()).map(|row| (position(row), text, row)));
    }
    // Stable: rows of a run keep their order.
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let ids: Vec<i64> = order
        .iter()
        .flat_map(|(_, text, row)| texts[*text].row(*row))
        .copied()
        .collect();
    Ok(TokenBatch::from_ids(ids, order.len(), sequence)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn shares_add_up_and_are_fair(
            weights in prop::collection::vec(0.01f64..100.0, 1..6), extra in 0usize..300,
        ) {
            let samples = weights.len() + extra;
            let shares = divide_samples(samples, &weights).unwrap();
            prop_assert_eq!(shares.iter().sum::<usize>(), samples);
            let whole: f64 = weights.iter().sum();
            for (share, weight) in shares.iter().zip(&weights) {
                prop_assert!(*share >= 1);
                // One sample of rounding, and one for each text that had to be given its first.
                let fair = weight / whole * samples as f64;
                prop_assert!((*share as f64 - fair).abs() <= 1.0 + weights.len() as f64, "{shares:?} of {weights:?}");
            }
        }
    }

    #[test]
    fn even_weights_and_whole_shares_are_exact() {
        assert_eq!(divide_samples(128, &[2.0, 1.0, 1.0]).unwrap(), [64, 32, 32]);
        assert_eq!(divide_samples(4, &[1.0, 1.0, 1.0]).unwrap(), [2, 1, 1]);
        assert_eq!(divide_samples(3, &[100.0, 1.0, 1.0]).unwrap(), [1, 1, 1]);
    }

    #[test]
    fn what_cannot_be_divided_is_refused() {
        for (samples, weights) in [
            (8, &[1.0, 0.0][..]),
            (8, &[f64::NAN]),
            (8, &[-1.0]),
            (8, &[]),
            (1, &[1.0, 1.0]),
        ] {
            assert!(matches!(divide_samples(samples, weights), Err(CalibError::Mix { .. })));
        }
    }

    #[test]
    fn every_stretch_has_the_shares_of_the_whole() {
        let batch = |first: i64, rows: usize| {
            TokenBatch::from_ids((first..first + 2 * rows as i64).collect(), rows, 2).unwrap()
        };
        let mixed = interleave(&[batch(0, 6), batch(100, 3)], 1).unwrap();
        assert_eq!((mixed.batch(), mixed.sequence()), (9, 2));
        for third in 0..3 {
            let rows = (3 * third..3 * third + 3).filter(|row| mixed.row(*row)[0] >= 100);
            assert_eq!(rows.count(), 1);
        }
        let shorter = TokenBatch::from_ids(vec![1, 2, 3], 1, 3).unwrap();
        assert!(interleave(&[batch(0, 2), shorter], 1).is_err());
        assert!(interleave(&[], 1).is_err());
    }

    #[test]
    fn runs_are_of_one_text_and_what_makes_none_comes_last() {
        let batch =
            |first: i64, rows: usize| TokenBatch::from_ids((first..first + rows as i64).collect(), rows, 1).unwrap();
        let mixed = interleave(&[batch(0, 5), batch(100, 4)], 2).unwrap();
        assert_eq!(mixed.ids(), [0, 1, 100, 101, 2, 3, 102, 103, 4]);
        let short = interleave(&[batch(0, 3), batch(100, 1)], 4).unwrap();
        assert_eq!(short.ids(), [0, 1, 2, 100]);
        assert_eq!(interleave(&[batch(0, 3)], 0).unwrap().ids(), [0, 1, 2]);
    }
}
