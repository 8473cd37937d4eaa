//! What the embedded stories give, recorded from transformers.

use transmla_calib::{SampleSpec, Split, evaluation_windows, sample};

use crate::{TOKENIZER, stories};

/// FNV-1a over the ids as little-endian i64.
fn hash(ids: &[i64]) -> u64 {
    let bytes = ids.iter().flat_map(|id| id.to_le_bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    })
}

#[test]
fn the_splits_are_read_in_full() {
    let rows = [Split::Train, Split::Validation, Split::Test].map(|split| stories(split).rows.len());
    assert_eq!(rows, ROWS);
    assert!(
        stories(Split::Train)
            .origin
            .ends_with("train-00000-of-00001.parquet, column text, train split")
    );
}

#[test]
fn the_test_windows_are_those_of_transformers() {
    let windows = evaluation_windows(&stories(Split::Test).rows, &TOKENIZER, 512, None).unwrap();
    assert_eq!((windows.batch(), windows.sequence()), (58, 512));
    assert_eq!(
        windows.row(0)[..12],
        [1, 403, 407, 261, 378, 432, 383, 286, 261, 376, 268, 315]
    );
    assert_eq!(hash(windows.ids()), TEST_HASH);
}

#[test]
fn the_draw_of_a_seed_does_not_change() {
    let spec = SampleSpec {
        samples: 128,
        sequence: 256,
        seed: 42,
    };
    let sampled = sample(&stories(Split::Train).rows, &TOKENIZER, &spec).unwrap();
    assert_eq!((sampled.tokens.batch(), sampled.requested), (128, 128));
    assert!(
        (0..128).all(|row| sampled.tokens.row(row)[0] == 1),
        "every sample begins with BOS"
    );
    assert_eq!(hash(sampled.tokens.ids()), DRAW_HASH);
}

/// Rows of the train, validation and test split.
const ROWS: [usize; 3] = [270, 53, 85];
/// Of the ids that transformers gives for the test split in windows of 512.
const TEST_HASH: u64 = 0xac35_bf50_bfb2_8e7f;
/// Of the ids drawn from the train split, 128 x 256, seed 42.
const DRAW_HASH: u64 = 0x1a38_f4fb_e6f0_f2b1;
