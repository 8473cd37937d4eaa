//! A program that uses the library makes what the command makes, to the byte.

use std::path::{Path, PathBuf};

use transmla_convert::{Conversion, LocalText, MethodName, Recipe, Setup, Silent, Sweep};

use crate::support::{Workplace, models, names, transmla};

/// The recipe of [`Workplace::convert`].
fn recipe(place: &Workplace) -> Recipe {
    let mut recipe = Recipe {
        model_path: place.arg("model"),
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        freqfold: "1".parse().unwrap(),
        refine: Some(2),
        ..Recipe::default()
    };
    recipe.calibration.cal_dataset = Some("stories".into());
    recipe.calibration.cal_nsamples = Some(4);
    recipe.calibration.cal_max_seqlen = Some(32);
    recipe.evaluation.eval_seqlen = Some(32);
    recipe.evaluation.eval_max_windows = Some(2);
    recipe
}

fn setup() -> Setup {
    let stories = LocalText {
        name: "stories".into(),
        kind: "embedded".into(),
        folder: models().join("stories"),
    };
    Setup {
        texts: vec![stories],
        ..Setup::default()
    }
}

/// Checks that two folders have the same files.
#[track_caller]
fn same(one: &Path, other: &Path) {
    let files = names(one);
    assert!(files.iter().any(|name| name == "transmla.toml") && files.iter().any(|name| name == "README.md"));
    assert_eq!(files, names(other));
    for file in files {
        let [one, other] = [one, other].map(|folder| std::fs::read(folder.join(&file)).unwrap());
        assert!(one == other, "{file} differs");
    }
}

#[test]
fn twenty_lines_convert_as_the_command_does() {
    let place = Workplace::new();
    for (changes, more) in [
        (Recipe::default(), &["--refine", "2"][..]),
        (
            Recipe {
                method: MethodName::Transmla,
                ..Recipe::default()
            },
            &["--method", "transmla"],
        ),
    ] {
        transmla(&place.convert(&[more, &["--force", "--no-report"]].concat())).succeeds();
        let recipe = Recipe {
            method: changes.method,
            refine: (changes.method == MethodName::Coherent).then_some(2),
            ..recipe(&place)
        };
        let save_path = place.path("by-library");
        let setup = Setup {
            replace: true,
            ..setup()
        };
        let planned = Conversion::new(recipe).unwrap().with(setup).plan(&mut Silent).unwrap();
        assert_eq!(planned.plan().cache_numbers(), (64, 36));
        let report = planned.run(&save_path, &mut Silent).unwrap();
        assert!(report.mla.unwrap().perplexity.is_finite());
        same(&place.path("outputs"), &save_path);
    }
}

/// What a recipe leaves open is what the command takes: half of the cache.
#[test]
fn widths_that_are_left_open_are_the_commands() {
    let place = Workplace::new();
    let open = Recipe {
        qk_mqa_dim: None,
        kv_lora_rank: None,
        ..recipe(&place)
    };
    let text = open.to_toml().unwrap();
    assert!(!text.contains("lora") && !text.contains("mqa"), "{text}");
    std::fs::write(place.path("open.toml"), text).unwrap();
    let planned = Conversion::new(open).unwrap().with(setup()).plan(&mut Silent).unwrap();
    assert_eq!(
        (planned.plan().recipe().qk_mqa_dim, planned.plan().recipe().kv_lora_rank),
        (Some(8), Some(24))
    );
    let (model, recipe) = (place.arg("model"), place.arg("open.toml"));
    for more in [["--model-path", &model], ["--recipe", &recipe]] {
        let plan = transmla(&[&["convert", "--dry-run", "--json"], &more[..]].concat()).json();
        assert_eq!(
            (&plan["kv_cache"]["mla"], &plan["shapes"]["kv_lora_rank"]),
            (&32.into(), &24.into()),
            "{plan}"
        );
    }
}

#[test]
fn numbers_out_of_range_are_refused_before_any_work() {
    let place = Workplace::new();
    let problem = |change: &dyn Fn(&mut Recipe)| {
        let mut recipe = recipe(&place);
        change(&mut recipe);
        let planned = Conversion::new(recipe).and_then(|conversion| conversion.with(setup()).plan(&mut Silent));
        planned.unwrap_err().to_string()
    };
    assert!(problem(&|recipe| recipe.calibration.cal_noise = Some(2.0)).contains("cal_noise is 2"));
    assert!(problem(&|recipe| recipe.calibration.cal_noise = Some(f64::NAN)).contains("cal_noise is NaN"));
    assert!(problem(&|recipe| recipe.evaluation.eval_seqlen = Some(1)).contains("eval_seqlen is 1"));
    let refined = problem(&|recipe| (recipe.method, recipe.refine) = (MethodName::Transmla, Some(5)));
    assert!(refined.contains("refine is 5"), "{refined}");
}

#[test]
fn a_sweep_of_recipes_is_that_of_the_command() {
    let place = Workplace::new();
    let words = "--budgets 8+28,8+12 --methods transmla,coherent --refine 2 --freqfold 1 --cal-dataset stories \
                 --cal-nsamples 4 --cal-max-seqlen 32 --eval-seqlen 32 --eval-max-windows 2";
    let paths = [
        ["--model-path".to_owned(), place.arg("model")],
        ["--save-path".to_owned(), place.arg("swept")],
        ["--output".to_owned(), place.arg("figures")],
    ];
    let mut arguments = vec!["sweep".to_owned()];
    arguments.extend(words.split_whitespace().map(str::to_owned));
    arguments.extend(paths.concat());
    transmla(&arguments).succeeds();

    let kinds = [
        (MethodName::Transmla, None, "transmla"),
        (MethodName::Coherent, Some(2), "coherent-refine2"),
    ];
    let mut models: Vec<(Recipe, PathBuf)> = Vec::new();
    for (method, refine, slug) in kinds {
        for kv_lora_rank in [28, 12] {
            let recipe = Recipe {
                method,
                refine,
                kv_lora_rank: Some(kv_lora_rank),
                ..recipe(&place)
            };
            models.push((recipe, place.path(&format!("library/{slug}-8-{kv_lora_rank}"))));
        }
    }
    let folders: Vec<PathBuf> = models.iter().map(|(_, folder)| folder.clone()).collect();
    let planned = Sweep::new(models).unwrap().with(setup()).plan(&mut Silent).unwrap();
    assert_eq!(planned.run(&mut Silent).unwrap().len(), 4);
    for folder in folders {
        same(&place.path("swept").join(folder.file_name().unwrap()), &folder);
    }
}
