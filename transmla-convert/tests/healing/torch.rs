//! A few steps agree with torch's AdamW on the same models; `record.py` made what they are held against.

use std::path::{Path, PathBuf};

use transmla_convert::{HealRequest, HealStep, Healing, Observer, Stage, Words, heal};
use transmla_core::Checkpoint;
use transmla_core::checkpoint::read_input_ids;

use crate::setting::open;

fn recorded(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/healing/torch")
        .join(name)
}

/// The steps as `record.py` printed them: divergence, cross-entropy and length of the gradient.
const STEPS: [[f64; 3]; 4] = [
    [0.945198, 4.629046, 0.2471],
    [0.840540, 4.533456, 0.2064],
    [0.703595, 4.369758, 0.1436],
    [0.621116, 4.261709, 0.1130],
];

struct Steps(Vec<HealStep>);

impl Observer for Steps {
    fn begin(&mut self, _: Stage) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
    fn heal_step(&mut self, step: &HealStep) {
        self.0.push(*step);
    }
}

#[test]
fn steps_are_those_of_torch() {
    let place = tempfile::tempdir().unwrap();
    let save_path = place.path().join("healed");
    let (converted, original) = (open(&recorded("converted")), open(&recorded("original")));
    let text = read_input_ids(&recorded("input_ids.safetensors")).unwrap();
    let mut healing = Healing {
        steps: 4,
        batch_size: 4,
        micro_batch: 3,
        learning_rate: 0.02,
        warmup: 0.5,
        weight_decay: 0.1,
        max_grad_norm: 0.05,
        kl_weight: 1.0,
        ce_weight: 0.1,
        held_out: 0.2,
        checks: 1,
        ..Healing::default()
    };
    healing.text.seed = 42;
    let request = HealRequest {
        converted: &converted,
        original: &original,
        text: &text,
        healing: &healing,
        save_path: &save_path,
        replace: false,
        words: Words {
            original: "original",
            text: "ids",
        },
        extra_files: &[],
    };
    let mut steps = Steps(Vec::new());
    let report = heal(&request, &mut steps).unwrap();
    assert_eq!(steps.0.len(), STEPS.len());
    for (step, [kl, cross_entropy, length]) in steps.0.iter().zip(STEPS) {
        assert!((step.distance.kl - kl).abs() < 1e-5, "{step:?}");
        assert!((step.distance.cross_entropy - cross_entropy).abs() < 1e-5, "{step:?}");
        assert!((step.gradient - length).abs() < 1e-3 * length, "{step:?}");
    }
    assert_eq!(report.kept, 4);
    let (expected, found) = (
        Checkpoint::open(&recorded("expected")).unwrap(),
        Checkpoint::open(&save_path).unwrap(),
    );
    let before = Checkpoint::open(&recorded("converted")).unwrap();
    for name in expected.names() {
        let shape = expected.shape(name).unwrap();
        let values = |checkpoint: &Checkpoint| checkpoint.values(name, shape).unwrap();
        let (expected, found, before) = (values(&expected), values(&found), values(&before));
        let moved = expected
            .iter()
            .zip(&before)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
            .sqrt();
        let off = expected
            .iter()
            .zip(&found)
            .map(|(a, b)| f64::from(a - b).powi(2))
            .sum::<f64>()
            .sqrt();
        assert!(moved > 0.0 && off < 1e-3 * moved, "{name}: {off} off, moved by {moved}");
    }
}
