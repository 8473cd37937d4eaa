//! A conversion that was ended goes on where it was, and ends as if nothing had happened.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;
use transmla_convert::{MethodName, Observer, Plan, Recipe, Report, Request, SavedLayer, Stage, convert};
use transmla_core::checkpoint::Claim;
use transmla_core::{Decoder, LayeredModel, Residency, StorageDtype, TokenBatch};

mod common;

/// Notes the layers that are refined and what becomes of saved ones, and ends the conversion at one of them.
#[derive(Default)]
struct Watch {
    refined: BTreeSet<usize>,
    saved: Vec<(usize, SavedLayer)>,
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
    fn saved_layer(&mut self, layer: usize, state: SavedLayer) {
        self.saved.push((layer, state));
    }
}

fn run(model: &Path, target: &Path, text: &TokenBatch, refine: usize, watch: &mut Watch) -> Report {
    let source = Decoder::open(model, &Device::flex(), Residency::Streamed).unwrap();
    let options = Recipe {
        method: MethodName::Coherent,
        refine: Some(refine),
        qk_mqa_dim: Some(4),
        kv_lora_rank: Some(12),
        dtype: StorageDtype::Bf16,
        ..Recipe::default()
    };
    let plan = Plan::new(source.config(), &options).unwrap();
    let request = Request {
        replace: true,
        ..common::request(&plan, &source, text, target)
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
    let last = (layers - 1, SavedLayer::Saved);
    let reused = (0..layers - 1).map(|layer| (layer, SavedLayer::Reused));
    assert_eq!(rest.saved, reused.chain([last]).collect::<Vec<_>>());
    assert_eq!(report, expected);
    assert_eq!(weights(&at("again")), weights(&at("whole")));
    assert_eq!(
        names(folder.path()),
        ["again", "source", "whole"].map(String::from).into()
    );
}

/// Notes how gradients are taken, and ends the conversion after so many of their steps.
#[derive(Default)]
struct GradientWatch {
    resumed: Option<(u64, u64)>,
    saved: Vec<u64>,
    end_after: Option<u64>,
}

impl Observer for GradientWatch {
    fn begin(&mut self, _: Stage) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
    fn saved_part(&mut self, stage: Stage, done: u64, total: u64) {
        assert_eq!((stage, total), (Stage::Gradients, 7));
        self.saved.push(done);
        assert_ne!(self.end_after, Some(done), "ended here");
    }
    fn resumed(&mut self, _: Stage, done: u64, total: u64) {
        self.resumed = Some((done, total));
    }
    fn refining(&mut self, layer: usize, _: f64) {
        assert_ne!(self.end_after, Some(8), "ended at layer {layer}");
    }
}

/// Wherever the passes forwards and backwards are ended, and whatever is damaged of what they have kept: what is whole is not
/// done again, and the model is the same.
#[test]
fn gradients_are_not_taken_again() {
    let folder = tempfile::tempdir().unwrap();
    let (model, target) = (folder.path().join("source"), folder.path().join("out"));
    common::write_random_variant(&model, &json!({"num_hidden_layers": 3, "num_key_value_heads": 3}));
    // Four batches of a sequence each.
    let text = TokenBatch::from_ids((0..2000).map(|i| (i * i + 3 * i) % 50).collect(), 40, 50).unwrap();
    let convert_with = |watch: &mut GradientWatch| {
        let source = Decoder::open(&model, &Device::flex(), Residency::Streamed).unwrap();
        let recipe = Recipe {
            method: MethodName::Coherent,
            refine: Some(1),
            qk_mqa_dim: Some(4),
            kv_lora_rank: Some(12),
            ..Recipe::default()
        };
        let plan = Plan::new(source.config(), &recipe).unwrap();
        let request = Request {
            replace: true,
            ..common::request(&plan, &source, &text, &target)
        };
        catch_unwind(AssertUnwindSafe(|| convert(&request, watch).unwrap()))
    };
    let end_after = |steps| {
        let mut ended = GradientWatch {
            end_after: Some(steps),
            ..GradientWatch::default()
        };
        convert_with(&mut ended).unwrap_err();
    };
    let go_on = || {
        let mut watch = GradientWatch::default();
        convert_with(&mut watch).unwrap();
        (watch, weights(&target))
    };
    let (whole, expected) = go_on();
    assert_eq!((whole.resumed, whole.saved), (None, (1..=7).collect()));
    for steps in 1..=8 {
        end_after(steps);
        let (rest, found) = go_on();
        let done = steps.min(7);
        assert_eq!((rest.resumed, rest.saved), (Some((done, 7)), (done + 1..=7).collect()));
        assert!(found == expected, "{steps}");
    }
    // Where it must begin again after one flipped bit: behind the last layer that has what is needed.
    for (steps, damaged, expected_start) in [
        (3, "state-00002-00000", 1),
        (3, "state-00001-00000", 0),
        (5, "behind-00002-00000", 1),
        (5, "output-00002-00000", 1),
        (7, "output-00000-00000", 0),
    ] {
        end_after(steps);
        let statistics = folder.path().join(".out.layers/statistics");
        let basis = names(&statistics).into_iter().next().unwrap();
        let file = statistics.join(basis).join(damaged);
        let mut bytes = std::fs::read(&file).unwrap();
        bytes[100] ^= 1;
        std::fs::write(&file, bytes).unwrap();
        let (rest, found) = go_on();
        let start = rest.resumed.map_or(0, |(done, _)| done);
        assert_eq!(start, expected_start, "{damaged}");
        assert!(found == expected, "{damaged}");
    }
    assert_eq!(names(folder.path()), ["out", "source"].map(String::from).into());
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
}

/// A model of three layers whose conversion was ended at the last one.
struct Ended {
    folder: tempfile::TempDir,
    text: TokenBatch,
}

impl Ended {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let text = TokenBatch::from_ids((0..400).map(|i| (i * i + 3 * i) % 50).collect(), 8, 50).unwrap();
        let place = Self { folder, text };
        let changes = json!({"num_hidden_layers": 3, "num_key_value_heads": 3});
        common::write_random_variant(&place.model(), &changes);
        let mut ended = Watch {
            end_at: Some(2),
            ..Watch::default()
        };
        catch_unwind(AssertUnwindSafe(|| place.run(&mut ended))).unwrap_err();
        assert_eq!(ended.saved, [(0, SavedLayer::Saved), (1, SavedLayer::Saved)]);
        place
    }

    fn model(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn kept(&self, layer: usize, name: &str) -> PathBuf {
        let folder = self.folder.path().join(format!(".out.layers/layer-{layer:05}"));
        folder.join(name)
    }

    fn run(&self, watch: &mut Watch) -> Report {
        run(&self.model(), &self.target(), &self.text, 3, watch)
    }

    /// What becomes of the first two layers when the conversion goes on, and whether it ends in the model of one that was
    /// never ended.
    fn go_on(&self) -> Vec<(usize, SavedLayer)> {
        let mut watch = Watch::default();
        self.run(&mut watch);
        let whole = self.folder.path().join("whole");
        run(&self.model(), &whole, &self.text, 3, &mut Watch::default());
        assert_eq!(weights(&self.target()), weights(&whole));
        watch.saved.retain(|(layer, _)| *layer < 2);
        watch.saved
    }
}

/// Gradients and hidden states come from all of the original: no tensor may be another one.
#[test]
fn layers_of_a_source_that_was_changed_are_not_taken() {
    for name in [
        "model.layers.0.mlp.down_proj.weight",
        "model.layers.2.mlp.down_proj.weight",
        "model.layers.1.input_layernorm.weight",
        "model.norm.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
        "model.layers.2.self_attn.o_proj.weight",
    ] {
        let place = Ended::new();
        common::change_tensor(&place.model(), name, |value| value / 2.0);
        let found = place.go_on();
        assert_eq!(found[0], (0, SavedLayer::Outdated), "{name}");
        assert!(!found.contains(&(1, SavedLayer::Reused)), "{name}: {found:?}");
    }
}

#[test]
fn a_source_that_was_copied_is_still_the_same() {
    let place = Ended::new();
    common::change_tensor(&place.model(), "none", |value| value);
    let reused = [(0, SavedLayer::Reused), (1, SavedLayer::Reused)];
    assert_eq!(place.go_on(), reused);
}

/// One flipped bit, anywhere in what is kept of a layer, is noticed; so is a file that was cut short.
#[test]
fn a_damaged_layer_is_refined_again_and_said_to_be_damaged() {
    type Position = fn(&[u8]) -> usize;
    let places: [(&str, Position); 4] = [
        ("model.safetensors", |bytes| bytes.len() - 1),
        ("model.safetensors", |bytes| bytes.len() / 2),
        ("model.safetensors", |_| 0),
        ("layer.json", |text| {
            text.windows(11).position(|word| word == b"kept_energy").unwrap() + 14
        }),
    ];
    for (name, position) in places {
        for layer in 0..2 {
            let place = Ended::new();
            let file = place.kept(layer, name);
            let mut bytes = std::fs::read(&file).unwrap();
            let at = position(&bytes);
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).unwrap();
            let found = place.go_on();
            assert!(found.contains(&(layer, SavedLayer::Damaged)), "{name} {at}: {found:?}");
            assert!(found.contains(&(layer, SavedLayer::Saved)), "{name} {at}: {found:?}");
            // The layer comes out as it was, so that the others still follow from it.
            assert!(
                found.contains(&(1 - layer, SavedLayer::Reused)),
                "{name} {at}: {found:?}"
            );
        }
    }
    let place = Ended::new();
    let file = place.kept(1, "model.safetensors");
    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert!(place.go_on().contains(&(1, SavedLayer::Damaged)));
}

/// As if another conversion had kept it: whole in itself, and not what this one follows from.
#[test]
fn a_layer_of_another_run_among_the_kept_ones_is_not_taken() {
    let place = Ended::new();
    let other = Ended::new();
    let unlike = TokenBatch::from_ids((0..400).map(|i| (i * i + 5 * i) % 50).collect(), 8, 50).unwrap();
    let mut ended = Watch {
        end_at: Some(2),
        ..Watch::default()
    };
    let run = || run(&other.model(), &other.target(), &unlike, 3, &mut ended);
    catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    for name in ["model.safetensors", "layer.json"] {
        std::fs::copy(other.kept(0, name), place.kept(0, name)).unwrap();
    }
    let found = place.go_on();
    assert_eq!(found[..2], [(0, SavedLayer::Outdated), (0, SavedLayer::Saved)]);
}

/// A second conversion to the same place does nothing at all, and the first is none the worse for it.
#[test]
fn a_second_conversion_to_the_same_place_is_refused() {
    let place = Ended::new();
    let before = names(&place.folder.path().join(".out.layers"));
    let claim = Claim::of(&place.target()).unwrap();
    let mut watch = Watch::default();
    let failed = catch_unwind(AssertUnwindSafe(|| place.run(&mut watch))).unwrap_err();
    let message = failed.downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(message.contains("Busy"), "{message}");
    assert!(watch.refined.is_empty() && watch.saved.is_empty());
    assert_eq!(names(&place.folder.path().join(".out.layers")), before);
    drop(claim);
    assert_eq!(place.go_on(), [(0, SavedLayer::Reused), (1, SavedLayer::Reused)]);
    assert_eq!(
        names(place.folder.path()),
        ["out", "source", "whole"].map(String::from).into()
    );
}

/// It would be a model of two sources otherwise.
#[test]
fn a_source_that_changes_on_the_way_is_an_error() {
    struct Meddler(PathBuf);
    impl Observer for Meddler {
        fn begin(&mut self, stage: Stage) {
            if stage == Stage::Compress {
                let file = names(&self.0).into_iter().find(|name| name.starts_with("model-00002"));
                let file = self.0.join(file.unwrap());
                let zeros = vec![0; std::fs::metadata(&file).unwrap().len() as usize];
                std::fs::write(&file, zeros).unwrap();
                let later = std::time::SystemTime::now() + std::time::Duration::from_secs(1);
                std::fs::File::options()
                    .write(true)
                    .open(&file)
                    .unwrap()
                    .set_modified(later)
                    .unwrap();
            }
        }
        fn advance(&mut self, _: u64, _: u64) {}
        fn end(&mut self, _: Stage, _: Option<f64>) {}
    }
    let text = TokenBatch::from_ids((0..400).map(|i| (i * i + 3 * i) % 50).collect(), 8, 50).unwrap();
    for (method, refine) in [
        (MethodName::Coherent, 3),
        (MethodName::Coherent, 0),
        (MethodName::Transmla, 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let model = folder.path().join("source");
        common::write_random_model(&model, 3, false, false);
        let source = Decoder::open(&model, &Device::flex(), Residency::Streamed).unwrap();
        let options = Recipe {
            method,
            refine: Some(refine),
            qk_mqa_dim: Some(4),
            kv_lora_rank: Some(12),
            ..Recipe::default()
        };
        let plan = Plan::new(source.config(), &options).unwrap();
        let target = folder.path().join("out");
        let request = common::request(&plan, &source, &text, &target);
        let error = convert(&request, &mut Meddler(model.clone())).unwrap_err().to_string();
        assert!(
            error.contains("model-00002") && error.contains("has changed"),
            "{error}"
        );
        let mut left = names(folder.path());
        left.remove(".out.layers");
        assert_eq!(left, BTreeSet::from(["source".to_owned()]));
    }
}
