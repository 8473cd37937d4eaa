//! Cutting evaluation text.

use proptest::prelude::*;
use transmla_calib::{CalibError, Split, evaluation_windows, evaluation_windows_from};

use crate::{TOKENIZER, stories};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn windows_are_the_text_cut(
        rows in proptest::collection::vec("[a-z ,.é]{0,40}", 1..40),
        seqlen in 2_usize..40,
        max in proptest::option::of(1_usize..10),
    ) {
        let whole = TOKENIZER.encode(&rows.join("\n\n"), true).unwrap();
        let windows = (whole.len() / seqlen).min(max.unwrap_or(usize::MAX));
        match evaluation_windows(&rows, &TOKENIZER, seqlen, max) {
            Ok(found) => {
                prop_assert_eq!((found.batch(), found.sequence()), (windows, seqlen));
                let expected: Vec<i64> = whole[..windows * seqlen].iter().map(|&id| i64::from(id)).collect();
                prop_assert_eq!(found.ids(), expected.as_slice());
            }
            Err(CalibError::TooShort { needed, found, .. }) => {
                prop_assert_eq!((windows, needed, found), (0, seqlen, whole.len()));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn windows_that_begin_with_a_token_have_the_text_behind_it(
        rows in proptest::collection::vec("[a-z ,.é]{0,40}", 1..40),
        seqlen in 2_usize..40,
        max in proptest::option::of(1_usize..10),
    ) {
        let whole = TOKENIZER.encode(&rows.join("\n\n"), false).unwrap();
        let windows = (whole.len() / (seqlen - 1)).min(max.unwrap_or(usize::MAX));
        match evaluation_windows_from(7, &rows, &TOKENIZER, seqlen, max) {
            Ok(found) => {
                prop_assert_eq!((found.batch(), found.sequence()), (windows, seqlen));
                for row in 0..windows {
                    let text = &whole[row * (seqlen - 1)..][..seqlen - 1];
                    prop_assert_eq!(found.row(row)[0], 7);
                    prop_assert!(found.row(row)[1..].iter().zip(text).all(|(found, id)| *found == i64::from(*id)));
                }
            }
            Err(CalibError::TooShort { needed, found, .. }) => {
                prop_assert_eq!((windows, needed, found), (0, seqlen, whole.len() + 1));
            }
            Err(error) => prop_assert!(false, "{error}"),
        }
    }
}

#[test]
fn the_first_windows_need_not_the_whole_text() {
    let rows = stories(Split::Test).rows;
    let all = evaluation_windows(&rows, &TOKENIZER, 64, None).unwrap();
    for count in [1, 2, 5, 50, 200, all.batch(), all.batch() + 1] {
        let some = evaluation_windows(&rows, &TOKENIZER, 64, Some(count)).unwrap();
        assert_eq!(some, all.rows(0..count).unwrap());
    }
    let huge = evaluation_windows(&rows, &TOKENIZER, 64, Some(usize::MAX)).unwrap();
    assert_eq!(huge, all);
}

#[test]
fn too_short_a_text_is_told_with_a_length_that_works() {
    let rows = ["Once upon a time".to_owned()];
    let error = evaluation_windows(&rows, &TOKENIZER, 2048, None).unwrap_err();
    let CalibError::TooShort { found, .. } = error else {
        panic!("{error}")
    };
    let text = error.to_string();
    assert!(
        text.contains("2048 tokens") && text.contains(&format!("windows of at most {found} tokens")),
        "{text}"
    );
    assert_eq!(evaluation_windows(&rows, &TOKENIZER, found, None).unwrap().batch(), 1);
    assert!(evaluation_windows(&[], &TOKENIZER, 16, None).is_err());
    assert!(evaluation_windows(&rows, &TOKENIZER, 1, None).is_err());
    assert!(evaluation_windows(&rows, &TOKENIZER, 2, Some(0)).is_err());
}
