//! A sweep makes what conversions one by one make, and does what they share once.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use transmla_convert::{
    Entry, Evaluation, Finished, FreqFold, LayerFigures, MethodName, Observer, Plan, Recipe, Report, Request, Requests,
    Silent, Stage, convert, convert_all,
};
use transmla_core::checkpoint::read_input_ids;
use transmla_core::{Decoder, LayeredModel, Residency};
use transmla_eval::EvalOptions;

/// Remembers what happened.
#[derive(Default)]
struct Log {
    stages: Vec<Stage>,
    groups: Vec<Vec<usize>>,
    done: Vec<(usize, Report)>,
    solved: Vec<(usize, LayerFigures)>,
}

impl Observer for Log {
    fn begin(&mut self, stage: Stage) {
        self.stages.push(stage);
    }

    fn advance(&mut self, _: u64, _: u64) {}

    fn end(&mut self, _: Stage, _: Option<f64>) {}

    fn converting(&mut self, models: &[usize]) {
        self.groups.push(models.to_vec());
    }

    fn solved(&mut self, model: usize, figures: &LayerFigures) {
        let model = self.groups.last().unwrap()[model];
        self.solved.push((model, figures.clone()));
    }

    fn finished(&mut self, finished: &Finished<'_>) -> Vec<(String, Vec<u8>)> {
        assert!(finished.folder.join("model.safetensors").is_file());
        let text = format!("{:?}", finished.report.mla);
        vec![("page.html".into(), text.into_bytes())]
    }

    fn converted(&mut self, model: usize, report: &Report) {
        self.done.push((model, report.clone()));
    }
}

impl Log {
    fn count(&self, wanted: Stage) -> usize {
        self.stages.iter().filter(|stage| **stage == wanted).count()
    }
}

fn options(method: MethodName, rope_dim: usize, rank: usize) -> Recipe {
    Recipe {
        method,
        refine: Some(0),
        qk_mqa_dim: Some(rope_dim),
        kv_lora_rank: Some(rank),
        freqfold: FreqFold::Auto,
        ..Recipe::default()
    }
}

fn path(relative: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(relative)
}

fn check_figures(plan: &Plan, figures: &[&LayerFigures], report: &Report) {
    assert_eq!(figures.len(), report.layers.len());
    let (rope_dim, rank) = (plan.latent().qk_rope_head_dim, plan.latent().kv_lora_rank);
    for (figures, layer) in figures.iter().zip(&report.layers) {
        assert_eq!(figures.layer, layer.layer);
        let kept = figures.spectrum[..rank].iter().sum::<f64>() / figures.spectrum.iter().sum::<f64>();
        assert!(
            (kept - layer.kept_energy).abs() < 1e-9,
            "{kept} and {}",
            layer.kept_energy
        );
        assert!(figures.spectrum.is_sorted_by(|a, b| a >= b));
        assert_eq!(
            (figures.slot_energy.len(), figures.slot_energy[0].len()),
            (rope_dim / 2, 4)
        );
        let carried: f64 = figures.slot_energy.iter().flatten().sum();
        assert!((0.1..4.0).contains(&carried), "{:?}", figures.slot_energy);
        let steps: Vec<usize> = figures.refinement.iter().map(|(step, _)| *step).collect();
        match plan.recipe().refine {
            Some(2) => assert_eq!(steps, [0, 1, 2]),
            _ => assert!(steps.is_empty()),
        }
    }
}

#[test]
fn as_one_by_one_but_with_shared_work_once() {
    let source = Decoder::open(
        &path("../transmla-cli/models/stories260k"),
        &Device::flex(),
        Residency::Loaded,
    )
    .unwrap();
    let calibration = read_input_ids(&path("tests/tokens/stories260k-calibration.safetensors")).unwrap();
    let windows = read_input_ids(&path("tests/tokens/stories260k-test.safetensors")).unwrap();
    let (calibration, windows) = (calibration.rows(0..16).unwrap(), windows.rows(0..2).unwrap());
    let evaluation = Some(Evaluation {
        windows: &windows,
        options: EvalOptions::default(),
    });
    let plans: Vec<Plan> = [
        options(MethodName::Transmla, 8, 28),
        options(MethodName::Coherent, 8, 28),
        options(MethodName::Transmla, 4, 28),
        options(MethodName::Transmla, 8, 12),
        Recipe {
            refine: Some(2),
            ..options(MethodName::Coherent, 4, 12)
        },
    ]
    .iter()
    .map(|options| Plan::new(source.config(), options).unwrap())
    .collect();
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str, index: usize| folder.path().join(format!("{name}-{index}"));
    let swept: Vec<PathBuf> = (0..plans.len()).map(|index| place("swept", index)).collect();
    let dropped = 3;
    // Two texts, as where methods differ in theirs.
    let fewer = calibration.rows(0..calibration.batch() - 1).unwrap();
    let text = |index: usize| if index == 2 { &fewer } else { &calibration };
    let entries: Vec<Entry<'_>> = (0..plans.len())
        .map(|index| Entry {
            plan: &plans[index],
            calibration: text(index),
            save_path: &swept[index],
            replace: false,
            keep: index != dropped,
            extra_files: &[],
            card: None,
        })
        .collect();
    let mut log = Log::default();
    let request = Requests {
        source: &source,
        questions: None,
        evaluation,
        entries: &entries,
    };
    let reports = convert_all(&request, &mut log).unwrap();

    assert_eq!(log.groups, [vec![0, 3], vec![1], vec![2], vec![4]]);
    assert_eq!(log.count(Stage::EvaluateOriginal), 1);
    assert_eq!(log.count(Stage::Decouple), 2);
    assert_eq!(log.count(Stage::EvaluateDecoupled), 2);
    assert_eq!(log.count(Stage::Gradients), 1);
    assert_eq!(log.count(Stage::EvaluateConverted), 5);
    let order: Vec<usize> = log.done.iter().map(|(model, _)| *model).collect();
    assert_eq!(order, [0, 3, 1, 2, 4]);
    assert!(log.done.iter().all(|(model, report)| *report == reports[*model]));

    for (index, plan) in plans.iter().enumerate() {
        let figures: Vec<&LayerFigures> = log
            .solved
            .iter()
            .filter(|(model, _)| *model == index)
            .map(|(_, it)| it)
            .collect();
        check_figures(plan, &figures, &reports[index]);
        let page = fs::read_to_string(swept[index].join("page.html")).ok();
        assert_eq!(page, (index != dropped).then(|| format!("{:?}", reports[index].mla)));
        let alone = place("alone", index);
        let request = Request {
            plan,
            source: &source,
            calibration: text(index),
            questions: None,
            evaluation,
            save_path: &alone,
            replace: false,
            extra_files: &[],
            card: None,
        };
        assert_eq!(convert(&request, &mut Silent).unwrap(), reports[index], "model {index}");
        if index == dropped {
            continue;
        }
        let recipe = fs::read_to_string(swept[index].join("transmla.toml")).unwrap();
        assert!(recipe.contains("\n\"page.html\" = "), "{recipe}");
        for file in ["model.safetensors", "config.json", "tokenizer.json"] {
            let [one, other] = [&swept[index], &alone].map(|folder| fs::read(folder.join(file)).unwrap());
            assert!(one == other, "model {index}: {file} differs");
        }
    }
    let mut left: Vec<String> = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with("alone"))
        .collect();
    left.sort();
    assert_eq!(left, ["swept-0", "swept-1", "swept-2", "swept-4"]);
}
