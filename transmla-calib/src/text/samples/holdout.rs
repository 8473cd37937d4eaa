//! Holding samples out for choices.

use transmla_checkpoint::TokenBatch;

use crate::error::CalibError;

/// Splits samples into those to fit on and those to choose on: every `every`-th sample is held out, or the last one if there
/// are fewer.
///
/// A choice made on the held-out samples is made on text that is neither fitted on nor reported.
///
/// # Errors
/// [`CalibError::Argument`] if there are fewer than two samples, or `every` is less than 2.
pub fn split_holdout(tokens: &TokenBatch, every: usize) -> Result<(TokenBatch, TokenBatch), CalibError> {
    if every < 2 {
        return Err(CalibError::Argument {
            name: "the distance of held-out samples",
            found: every,
            expected: "2 or more".into(),
        });
    }
    let samples = tokens.batch();
    if samples < 2 {
        return Err(CalibError::Argument {
            name: "the number of samples",
            found: samples,
            expected: "2 or more, one to fit on and one held out; raise `samples` or use a longer text".into(),
        });
    }
    let every = every.min(samples);
    let (held, fit): (Vec<usize>, Vec<usize>) = (0..samples).partition(|index| (index + 1) % every == 0);
    Ok((pick(tokens, &fit)?, pick(tokens, &held)?))
}

fn pick(tokens: &TokenBatch, samples: &[usize]) -> Result<TokenBatch, CalibError> {
    let ids = samples.iter().flat_map(|&index| tokens.row(index)).copied().collect();
    Ok(TokenBatch::from_ids(ids, samples.len(), tokens.sequence())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(samples: i64) -> TokenBatch {
        let ids = (0..samples).flat_map(|i| [i, 100 + i]).collect();
        TokenBatch::from_ids(ids, samples as usize, 2).unwrap()
    }

    #[test]
    fn every_kth_sample_is_held_out() {
        let (fit, held) = split_holdout(&batch(8), 4).unwrap();
        assert_eq!(held.ids(), &[3, 103, 7, 107]);
        assert_eq!(fit.ids(), &[0, 100, 1, 101, 2, 102, 4, 104, 5, 105, 6, 106]);
        let (fit, held) = split_holdout(&batch(3), 8).unwrap();
        assert_eq!((fit.batch(), held.ids()), (2, [2, 102].as_slice()));
        let (fit, held) = split_holdout(&batch(2), 2).unwrap();
        assert_eq!((fit.ids(), held.ids()), ([0, 100].as_slice(), [1, 101].as_slice()));
    }

    #[test]
    fn one_sample_cannot_be_split() {
        let error = split_holdout(&batch(1), 4).unwrap_err().to_string();
        assert!(error.contains("is 1") && error.contains("2 or more"), "{error}");
        assert!(split_holdout(&batch(4), 1).is_err());
        assert!(split_holdout(&batch(4), 0).is_err());
    }
}
