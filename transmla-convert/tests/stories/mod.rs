//! Conversions of stories260K on recorded tokens.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_convert::{ConvertOptions, Evaluation, Plan, Report, Request, Silent, convert};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::{Decoder, LayeredModel, Residency};
use transmla_eval::EvalOptions;

/// Converts with the first `samples` of 128 calibration samples and evaluates on the first `windows` of 58 test windows.
pub fn convert_stories(options: &ConvertOptions, samples: usize, windows: usize) -> Report {
    let source = Decoder::open(&path("../models/stories260k"), &Device::flex(), Residency::Loaded).unwrap();
    let calibration = read_input_ids(&path("tests/tokens/stories260k-calibration.safetensors")).unwrap();
    let test = read_input_ids(&path("tests/tokens/stories260k-test.safetensors")).unwrap();
    assert!(samples <= calibration.batch() && windows <= test.batch());
    let plan = Plan::new(source.config(), options).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let request = Request {
        plan: &plan,
        source: &source,
        calibration: &calibration.rows(0..samples).unwrap(),
        evaluation: Some(Evaluation {
            windows: &test.rows(0..windows).unwrap(),
            options: EvalOptions::default(),
        }),
        target: &folder.path().join("mla"),
        replace: false,
        extra_files: &[],
    };
    convert(&request, &mut Silent).unwrap()
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}
