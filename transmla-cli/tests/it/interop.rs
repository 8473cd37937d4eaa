//! Converted models against logits that stock transformers gave for them.
//!
//! `cargo xtask interop --record` makes the recordings, with the conversions of `tests/interop/cases.json`; here the same
//! conversions are made anew and compared, without Python.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde_json::Value;

use crate::support::transmla;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn recordings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

fn logits(file: &Path) -> (Vec<usize>, Vec<f32>) {
    let bytes = std::fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let logits = tensors.tensor("logits").unwrap();
    let numbers = logits.data().chunks_exact(4);
    let numbers = numbers.map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    (logits.shape().to_vec(), numbers)
}

#[test]
fn logits_are_those_of_stock_transformers() {
    let cases: Value = serde_json::from_slice(&std::fs::read(recordings().join("cases.json")).unwrap()).unwrap();
    let place = tempfile::tempdir().unwrap();
    for case in cases.as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let model = root().join(case["model"].as_str().unwrap());
        let target = place.path().join(name);
        let mut arguments = vec!["convert".to_owned(), "--model-path".into(), model.display().to_string()];
        arguments.extend(["--save-path".into(), target.display().to_string()]);
        arguments.extend(["--dtype", "fp32", "--ppl-eval-batch-size", "0"].map(str::to_owned));
        arguments.extend(case["arguments"].as_array().unwrap().iter().map(|word| {
            let word = word.as_str().unwrap();
            match word.ends_with(".safetensors") {
                true => model.join(word).display().to_string(),
                false => word.to_owned(),
            }
        }));
        let summary = transmla(&arguments).succeeds();
        assert!(summary.contains(case["class"].as_str().unwrap()), "{name}: {summary}");
        let recording = recordings().join(format!("{name}.safetensors"));
        let output = place.path().join("logits.safetensors");
        let words = ["logits", "--force", "--model-path"].map(Path::new);
        let paths = [
            &target,
            Path::new("--input-ids"),
            &recording,
            Path::new("--output"),
            &output,
        ];
        transmla(&[&words[..], &paths].concat()).succeeds();
        let ((shape, expected), (found_shape, found)) = (logits(&recording), logits(&output));
        assert_eq!(shape, found_shape, "{name}");
        let differences = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
        let worst = differences.fold(0.0, f32::max);
        // The model was converted anew: another machine rounds its second moments otherwise, and where that tips the choice of a
        // latent's power of two, what the latent's norm takes is another part of a thousandth (`cargo xtask interop` compares the
        // same files, to 1e-3).
        assert!(worst < 2e-2, "{name}: {worst}");
    }
}
