//! Conversions of stories260K on recorded tokens.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use tempfile::TempDir;
use transmla_convert::{Evaluation, Plan, Recipe, Report, Request, Silent, convert};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::{Decoder, LayeredModel, Residency, TokenBatch};
use transmla_eval::EvalOptions;

/// The first test windows.
pub fn test_windows(count: usize) -> TokenBatch {
    let test = read_input_ids(&path("tests/tokens/stories260k-test.safetensors")).unwrap();
    assert!(count <= test.batch());
    test.rows(0..count).unwrap()
}

/// Converts with the first `samples` of 128 calibration samples and evaluates on the first `windows` of 58 test windows; gives the
/// report, and a folder with the model in `mla`.
pub fn convert_stories(options: &Recipe, samples: usize, windows: usize) -> (Report, TempDir) {
    let source = Decoder::open(
        &path("../transmla-cli/models/stories260k"),
        &Device::flex(),
        Residency::Loaded,
    )
    .unwrap();
    let calibration = read_input_ids(&path("tests/tokens/stories260k-calibration.safetensors")).unwrap();
    assert!(samples <= calibration.batch());
    let plan = Plan::new(source.config(), options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        plan: &plan,
        source: &source,
        calibration: &calibration.rows(0..samples).unwrap(),
        questions: None,
        evaluation: Some(Evaluation {
            windows: &test_windows(windows),
            options: EvalOptions::default(),
        }),
        save_path: &folder.path().join("mla"),
        replace: false,
        extra_files: &[],
        card: None,
    };
    let report = convert(&request, &mut Silent).unwrap();
    (report, folder)
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}
