//! A conversion that is ended anywhere goes on, does nothing twice that was done, and gives the bytes of one that was never ended.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;
use transmla_convert::{
    ConvertError, FreqFold, LayerFigures, LayerReport, MethodName, Observer, Plan, Recipe, Report, Request, SavedLayer,
    Stage, convert,
};
use transmla_core::{Decoder, LayeredModel, Residency, TokenBatch};

mod common;

/// Layers of the model.
const LAYERS: usize = 3;

/// Ends a conversion at one of the moments at which it tells something, and notes what was done.
#[derive(Default)]
struct Ender {
    told: usize,
    end_at: Option<usize>,
    /// Layers that were solved, by the times.
    solved: Vec<usize>,
    /// Parts of stages that were done.
    parts: Vec<(Stage, u64)>,
}

impl Ender {
    fn tell(&mut self) {
        self.told += 1;
        assert_ne!(self.end_at, Some(self.told), "ended here");
    }
}

impl Observer for Ender {
    fn begin(&mut self, _: Stage) {
        self.tell();
    }
    fn advance(&mut self, _: u64, _: u64) {
        self.tell();
    }
    fn end(&mut self, _: Stage, _: Option<f64>) {
        self.tell();
    }
    fn layer(&mut self, _: usize, _: usize) {
        self.tell();
    }
    fn refining(&mut self, _: usize, _: f64) {
        self.tell();
    }
    fn saved_part(&mut self, stage: Stage, done: u64, _: u64) {
        self.parts.push((stage, done));
        self.tell();
    }
    fn saved_layer(&mut self, layer: usize, state: SavedLayer) {
        match state {
            SavedLayer::Saved => self.solved.push(layer),
            SavedLayer::Reused => {}
            other => panic!("layer {layer} is {other:?}"),
        }
        self.tell();
    }
    fn solved(&mut self, _: usize, _: &LayerFigures) {
        self.tell();
    }
    fn layer_done(&mut self, _: usize, _: &LayerReport) {
        self.tell();
    }
}

struct Place {
    folder: tempfile::TempDir,
    text: TokenBatch,
}

impl Place {
    fn new(changes: &serde_json::Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        common::write_random_variant(&folder.path().join("source"), changes);
        let text = TokenBatch::from_ids((0..1200).map(|i| (i * i + 3 * i) % 50).collect(), 24, 50).unwrap();
        Self { folder, text }
    }

    fn target(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    fn convert(&self, recipe: &Recipe, observer: &mut dyn Observer) -> Result<Report, ConvertError> {
        let model = self.folder.path().join("source");
        let source = Decoder::open(&model, &Device::flex(), Residency::Streamed)?;
        let plan = Plan::new(source.config(), recipe)?;
        let target = self.target();
        let request = Request {
            replace: true,
            ..common::request(&plan, &source, &self.text, &target)
        };
        convert(&request, observer)
    }

    /// What a conversion that is never ended gives, and what it does.
    fn whole(&self, recipe: &Recipe) -> (Ender, Report, BTreeMap<String, Vec<u8>>) {
        let mut watch = Ender::default();
        let report = self.convert(recipe, &mut watch).unwrap();
        (watch, report, files(&self.target()))
    }
}

/// Every file of a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(folder).unwrap().map(Result::unwrap);
    entries
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect()
}

fn recipe(method: MethodName, refine: usize, freqfold: FreqFold) -> Recipe {
    Recipe {
        method,
        refine: Some(refine),
        qk_mqa_dim: Some(4),
        kv_lora_rank: Some(10),
        freqfold,
        ..Recipe::default()
    }
}

/// Ends conversions at so many random moments.
fn end_at_random_moments(changes: &serde_json::Value, recipe: &Recipe, moments: usize) {
    let place = Place::new(changes);
    let (whole, expected, bytes) = place.whole(recipe);
    assert!(bytes.len() >= 3 && whole.told > 20, "{}", whole.told);
    let mut state = 7u64;
    for _ in 0..moments {
        state = state
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let moment = 1 + (state >> 33) as usize % whole.told;
        let mut ended = Ender {
            end_at: Some(moment),
            ..Ender::default()
        };
        catch_unwind(AssertUnwindSafe(|| place.convert(recipe, &mut ended))).unwrap_err();
        let mut rest = Ender::default();
        let report = place.convert(recipe, &mut rest).unwrap();
        assert_eq!(report, expected, "moment {moment}");
        assert!(files(&place.target()) == bytes, "moment {moment}");
        // Together they did what one does, and nothing twice.
        let solved: Vec<usize> = ended.solved.iter().chain(&rest.solved).copied().collect();
        assert_eq!(solved, (0..LAYERS).collect::<Vec<_>>(), "moment {moment}");
        let parts: Vec<_> = ended.parts.iter().chain(&rest.parts).copied().collect();
        assert_eq!(parts, whole.parts, "moment {moment}");
        let left: Vec<_> = files_of(place.folder.path());
        assert_eq!(left, ["out", "source"], "moment {moment}");
    }
}

fn files_of(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_refined_method_is_ended_at_50_moments() {
    let changes = json!({"num_hidden_layers": LAYERS, "num_key_value_heads": 3});
    end_at_random_moments(&changes, &recipe(MethodName::Coherent, 2, FreqFold::Auto), 50);
}

#[test]
fn the_closed_form_is_ended_at_50_moments() {
    let changes = json!({"num_hidden_layers": LAYERS, "num_key_value_heads": 3});
    end_at_random_moments(&changes, &recipe(MethodName::Coherent, 0, FreqFold::Auto), 50);
}

#[test]
fn the_published_method_is_ended_at_50_moments() {
    let changes = json!({"num_hidden_layers": LAYERS, "num_key_value_heads": 3});
    end_at_random_moments(&changes, &recipe(MethodName::Transmla, 0, FreqFold::Auto), 30);
    end_at_random_moments(&changes, &recipe(MethodName::Transmla, 0, FreqFold::Fixed(2)), 20);
}

/// Keys that stand for normalised ones are kept too, and biases.
#[test]
fn families_with_more_are_ended_at_random_moments() {
    for (family, method) in [
        ("qwen3", MethodName::Transmla),
        ("qwen3", MethodName::Coherent),
        ("qwen2", MethodName::Transmla),
        ("qwen2", MethodName::Coherent),
    ] {
        let changes = json!({"model_type": family, "num_hidden_layers": LAYERS, "num_key_value_heads": 3});
        end_at_random_moments(&changes, &recipe(method, 0, FreqFold::Auto), 6);
    }
}

/// Where nothing more can be kept, there is an error that names what could not be written, and no model; what was kept is still
/// of use.
#[test]
fn a_place_that_takes_no_more_is_an_error() {
    /// Puts a file where statistics are to go.
    struct Full(PathBuf, Stage);
    impl Observer for Full {
        fn begin(&mut self, stage: Stage) {
            if stage == self.1 {
                std::fs::create_dir_all(self.0.parent().unwrap()).unwrap();
                std::fs::write(&self.0, "no folder").unwrap();
            }
        }
        fn advance(&mut self, _: u64, _: u64) {}
        fn end(&mut self, _: Stage, _: Option<f64>) {}
    }
    for (method, refine, stage) in [
        (MethodName::Coherent, 1, Stage::Gradients),
        (MethodName::Transmla, 0, Stage::Decouple),
    ] {
        let place = Place::new(&json!({"num_hidden_layers": LAYERS, "num_key_value_heads": 3}));
        let recipe = recipe(method, refine, FreqFold::Fixed(2));
        let file = place.folder.path().join(".out.layers/statistics");
        let error = place
            .convert(&recipe, &mut Full(file.clone(), stage))
            .unwrap_err()
            .to_string();
        assert!(error.contains("statistics"), "{error}");
        assert_eq!(files_of(place.folder.path()), [".out.layers", "source"]);
        std::fs::remove_file(&file).unwrap();
        place.convert(&recipe, &mut Ender::default()).unwrap();
        assert_eq!(files_of(place.folder.path()), ["out", "source"]);
    }
}
