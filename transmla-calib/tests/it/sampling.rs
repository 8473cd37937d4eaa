//! Properties of the draw.

use std::collections::HashSet;

use proptest::prelude::*;
use transmla_calib::{CalibError, SampleSpec, sample, sample_with_noise};

use crate::TOKENIZER;

/// Rows that tell their number, some of them empty.
fn rows(lengths: &[usize]) -> Vec<String> {
    let row = |(index, &length): (usize, &usize)| match length {
        0 => String::new(),
        length => format!("#{index:03}#{}", " once upon a time".repeat(length)),
    };
    lengths.iter().enumerate().map(row).collect()
}

/// The numbers of the rows in a text whose marker is complete.
fn markers(text: &str) -> Vec<usize> {
    // What follows the last '#' may be the beginning of a number that was cut.
    let complete = text.rsplit_once('#').map_or("", |(complete, _)| complete);
    complete.split('#').filter_map(|part| part.parse().ok()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn rows_are_used_once_and_samples_are_whole(
        lengths in proptest::collection::vec(0_usize..6, 1..60),
        samples in 1_usize..12,
        sequence in 1_usize..60,
        seed: u64,
    ) {
        let rows = rows(&lengths);
        let spec = SampleSpec { samples, sequence, seed };
        match sample(&rows, &TOKENIZER, &spec) {
            Ok(sampled) => {
                let tokens = &sampled.tokens;
                prop_assert!(tokens.batch() <= samples && sampled.requested == samples);
                prop_assert_eq!(tokens.sequence(), sequence);
                prop_assert_eq!(&sample(&rows, &TOKENIZER, &spec).unwrap(), &sampled);
                let mut used = HashSet::new();
                for index in 0..tokens.batch() {
                    let ids: Vec<u32> = tokens.row(index).iter().map(|&id| id as u32).collect();
                    prop_assert_eq!(ids[0], 1);
                    let text = TOKENIZER.decode(&ids, true).unwrap();
                    prop_assert!(text.is_empty() || text.starts_with('#'), "{text:?}");
                    for row in markers(&text) {
                        prop_assert!(used.insert(row), "row {row} twice");
                    }
                }
            }
            Err(CalibError::TooShort { needed, found, .. }) => {
                prop_assert_eq!(needed, sequence);
                prop_assert!(found < sequence);
                // The value that the error proposes works.
                if found > 0 {
                    let shorter = sample(&rows, &TOKENIZER, &SampleSpec { sequence: found, ..spec });
                    prop_assert!(shorter.is_ok());
                }
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    #[test]
    fn a_share_of_the_samples_has_words_of_no_story(share in 0.0f64..=1.0, samples in 1_usize..12, seed: u64) {
        let rows = rows(&[9; 200]);
        let spec = SampleSpec { samples, sequence: 120, seed };
        let sampled = sample_with_noise(&rows, &TOKENIZER, &spec, share).unwrap();
        prop_assert_eq!(&sample_with_noise(&rows, &TOKENIZER, &spec, share).unwrap(), &sampled);
        prop_assert_eq!((sampled.tokens.batch(), sampled.requested), (samples, samples));
        // One word of four is "once", and some are numbers of rows; what else there is, is noise.
        let strange = |row: usize| {
            let ids: Vec<u32> = sampled.tokens.row(row).iter().map(|&id| id as u32).collect();
            let text = TOKENIZER.decode(&ids, true).unwrap();
            // The last word may be cut off.
            let words: Vec<&str> = text.split_whitespace().rev().skip(1).collect();
            let known = |word: &&&str| ["once", "upon", "a", "time"].contains(*word) || word.starts_with('#');
            words.iter().filter(|word| !known(word)).count() as f64 / words.len() as f64
        };
        let noisy: Vec<f64> = (0..samples).map(strange).filter(|share| *share > 0.0).collect();
        prop_assert_eq!(noisy.len(), (share * samples as f64).round() as usize);
        prop_assert!(noisy.iter().all(|share| (0.02..0.8).contains(share)), "{noisy:?}");
    }

    #[test]
    fn a_sample_is_the_text_from_a_row_on(sequence in 8_usize..200, seed: u64) {
        let rows = rows(&[3; 40]);
        let sampled = sample(&rows, &TOKENIZER, &SampleSpec { samples: 1, sequence, seed });
        // The start may be too near the end; then there may be other starts.
        if let Ok(sampled) = sampled {
            let ids: Vec<u32> = sampled.tokens.row(0).iter().map(|&id| id as u32).collect();
            let whole = (0..rows.len()).map(|start| TOKENIZER.encode(&rows[start..].join("\n\n"), true).unwrap());
            prop_assert!(whole.into_iter().any(|whole| whole.starts_with(&ids)));
        }
    }
}

#[test]
fn a_share_is_between_nothing_and_all() {
    let spec = SampleSpec {
        samples: 4,
        sequence: 32,
        seed: 1,
    };
    for share in [-0.1, 1.1, f64::NAN] {
        let error = sample_with_noise(&rows(&[4; 50]), &TOKENIZER, &spec, share).unwrap_err();
        assert!(error.to_string().contains("0 to 1"), "{error}");
    }
}

#[test]
fn seeds_differ() {
    let rows = rows(&[4; 200]);
    let draw = |seed| {
        let spec = SampleSpec {
            samples: 8,
            sequence: 64,
            seed,
        };
        sample(&rows, &TOKENIZER, &spec).unwrap().tokens
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

#[test]
fn a_short_text_gives_fewer_samples_than_asked() {
    let rows = rows(&[5; 30]);
    let spec = SampleSpec {
        samples: 1000,
        sequence: 32,
        seed: 7,
    };
    let sampled = sample(&rows, &TOKENIZER, &spec).unwrap();
    assert!((1..=30).contains(&sampled.tokens.batch()));
    assert_eq!(sampled.requested, 1000);
}

#[test]
fn what_cannot_be_drawn_is_refused() {
    let spec = SampleSpec {
        samples: 4,
        sequence: 1000,
        seed: 0,
    };
    let error = sample(&rows(&[3, 0, 2]), &TOKENIZER, &spec).unwrap_err().to_string();
    assert!(
        error.contains("1000 tokens") && error.contains("or sequence = "),
        "{error}"
    );
    let error = sample(&[String::new()], &TOKENIZER, &spec).unwrap_err().to_string();
    assert!(error.contains("yields 0: use another text"), "{error}");
    for spec in [SampleSpec { samples: 0, ..spec }, SampleSpec { sequence: 0, ..spec }] {
        assert!(matches!(
            sample(&rows(&[3]), &TOKENIZER, &spec),
            Err(CalibError::Argument { .. })
        ));
    }
}
