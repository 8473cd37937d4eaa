//! A conversion that was ended goes on where it was, and ends as if nothing had happened.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::tensor::Device;
use serde_json::json;
use transmla_convert::{ConvertOptions, Method, Observer, Plan, Report, Request, Stage, convert};
use transmla_core::{Decoder, LayeredModel, Residency, StorageDtype, TokenBatch};

mod common;

/// Notes the layers that are refined, and ends the conversion at one of them.
#[derive(Default)]
struct Watch {
    refined: BTreeSet<usize>,
    end_at: Option<usize>,
}

impl Observer for Watch {
    fn begin(&mut self, _: Stage) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
    fn refining(&mut self, layer: usize, error: f64) {
        assert!(error.is_finite());
        assert_ne!(self.end_at, Some(layer), "ended here");
        self.refined.insert(layer);
    }
}

fn run(model: &Path, target: &Path, text: &TokenBatch, refine: usize, watch: &mut Watch) -> Report {
    let source = Decoder::open(model, &Device::flex(), Residency::Streamed).unwrap();
    let options = ConvertOptions {
        method: Method::Coherent,
        refine,
        qk_mqa_dim: 4,
        kv_lora_rank: 12,
        dtype: StorageDtype::Bf16,
        ..ConvertOptions::default()
    };
    let plan = Plan::new(source.config(), &options).unwrap();
    let request = Request {
        plan: &plan,
        source: &source,
        calibration: text,
        evaluation: None,
        target,
        replace: true,
        extra_files: &[],
    };
    convert(&request, watch).unwrap()
}

fn weights(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("model.safetensors")).unwrap()
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn an_ended_conversion_goes_on_and_gives_the_same_model() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path().join("source");
    common::write_random_model(&model, 3, true, false);
    let text = TokenBatch::from_ids((0..400).map(|i| (i * i + 3 * i) % 50).collect(), 8, 50).unwrap();
    let at = |name: &str| folder.path().join(name);

    let mut whole = Watch::default();
    let expected = run(&model, &at("whole"), &text, 3, &mut whole);
    let layers = expected.layers.len();
    assert!(layers >= 2 && whole.refined.len() == layers);

    let mut ended = Watch {
        end_at: Some(layers - 1),
        ..Watch::default()
    };
    catch_unwind(AssertUnwindSafe(|| run(&model, &at("again"), &text, 3, &mut ended))).unwrap_err();
    assert!(!at("again").exists() && at(".again.layers").is_dir());

    let mut rest = Watch::default();
    let report = run(&model, &at("again"), &text, 3, &mut rest);
    assert_eq!(rest.refined, BTreeSet::from([layers - 1]));
    assert_eq!(report, expected);
    assert_eq!(weights(&at("again")), weights(&at("whole")));
    assert_eq!(
        names(folder.path()),
        ["again", "source", "whole"].map(String::from).into()
    );
}

#[test]
fn layers_of_other_plans_texts_and_models_are_not_taken() {
    let folder = tempfile::tempdir().unwrap();
    let (model, other) = (folder.path().join("source"), folder.path().join("other"));
    common::write_random_model(&model, 3, false, false);
    common::write_random_variant(&other, &json!({"num_key_value_heads": 3, "vocab_size": 51}));
    let text = TokenBatch::from_ids((0..400).map(|i| (i * i + 3 * i) % 50).collect(), 8, 50).unwrap();
    let unlike = TokenBatch::from_ids((0..400).map(|i| (i * i + 5 * i) % 50).collect(), 8, 50).unwrap();
    let target = folder.path().join("out");
    let end = || {
        let mut ended = Watch {
            end_at: Some(1),
            ..Watch::default()
        };
        catch_unwind(AssertUnwindSafe(|| run(&model, &target, &text, 3, &mut ended))).unwrap_err();
    };
    for (model, text, refine) in [(&model, &text, 4), (&model, &unlike, 3), (&other, &text, 3)] {
        end();
        let mut watch = Watch::default();
        run(model, &target, text, refine, &mut watch);
        assert!(watch.refined.contains(&0));
    }
    // What is damaged is done again.
    end();
    let kept = folder.path().join(".out.layers/layer-00000/model.safetensors");
    let bytes = std::fs::read(&kept).unwrap();
    std::fs::write(&kept, &bytes[..bytes.len() / 2]).unwrap();
    let mut watch = Watch::default();
    run(&model, &target, &text, 3, &mut watch);
    assert!(watch.refined.contains(&0));
}
