//! A healing that was ended goes on where it was, and ends as if nothing had happened.

use std::panic::{AssertUnwindSafe, catch_unwind};

use serde_json::json;
use transmla_convert::{HealReport, HealStep, Healing, Observer, Recipe, Stage, Trained};

use crate::common::write_random_variant;
use crate::setting::{Setting, few_steps, stored};

/// Notes the steps, and ends the healing before one of them is told.
#[derive(Default)]
struct Watch {
    steps: Vec<usize>,
    resumed: Option<usize>,
    end_at: Option<usize>,
    taught: usize,
}

impl Observer for Watch {
    fn begin(&mut self, stage: Stage) {
        self.taught += usize::from(stage == Stage::Teach);
    }
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
    fn heal_step(&mut self, step: &HealStep) {
        assert_ne!(self.end_at, Some(step.done), "ended here");
        self.steps.push(step.done);
    }
    fn heal_resumed(&mut self, done: usize, _: usize) {
        self.resumed = Some(done);
    }
}

fn setting() -> Setting {
    let recipe = Recipe {
        qk_mqa_dim: Some(4),
        kv_lora_rank: Some(10),
        ..Recipe::default()
    };
    Setting::of(
        |folder| write_random_variant(folder, &json!({"num_key_value_heads": 3})),
        &recipe,
    )
}

fn ended(setting: &Setting, healing: &Healing, at: usize) -> Watch {
    let _ = std::fs::remove_dir_all(setting.path("again"));
    let mut watch = Watch {
        end_at: Some(at),
        ..Watch::default()
    };
    catch_unwind(AssertUnwindSafe(|| setting.heal_with(healing, "again", &mut watch))).unwrap_err();
    assert!(!setting.path("again").exists() && setting.path(".again.layers").is_dir());
    watch
}

fn same_weights(setting: &Setting) {
    let (whole, again) = (setting.weights("whole"), setting.weights("again"));
    for name in whole.names() {
        assert_eq!(stored(&whole, name), stored(&again, name), "{name}");
    }
}

#[test]
fn an_ended_healing_gives_the_same_bytes() {
    let setting = setting();
    for (train, top) in [
        (Trained::Attention, None),
        (Trained::Lora, None),
        (Trained::All, Some(7)),
    ] {
        // Saved after 3, 6 and 9 steps.
        let healing = Healing {
            train,
            teacher_top_k: top,
            lora_rank: 3,
            ..few_steps(9)
        };
        let expected = setting.heal(&healing, "whole");
        ended(&setting, &healing, 8);
        let mut rest = Watch::default();
        let report: HealReport = setting.heal_with(&healing, "again", &mut rest).unwrap();
        assert_eq!((rest.resumed, rest.steps), (Some(6), vec![7, 8, 9]), "{train:?}");
        assert_eq!(rest.taught, 0, "logits are kept as well");
        assert_eq!(report, expected, "{train:?}");
        same_weights(&setting);
        let recipe = |name: &str| std::fs::read(setting.path(name).join("transmla.toml")).unwrap();
        assert_eq!(recipe("whole"), recipe("again"));
        assert!(!setting.path(".again.layers").exists());
    }
}

#[test]
fn states_of_other_options_and_damaged_ones_are_not_taken() {
    let setting = setting();
    let healing = few_steps(9);
    setting.heal(&healing, "whole");
    let others = [
        Healing {
            learning_rate: 0.011,
            ..healing.clone()
        },
        Healing {
            steps: 10,
            ..healing.clone()
        },
    ];
    for other in others {
        ended(&setting, &healing, 8);
        let mut watch = Watch::default();
        setting.heal_with(&other, "again", &mut watch).unwrap();
        assert_eq!((watch.resumed, watch.steps[0]), (None, 1));
    }
    // Damage is noticed, and the training begins anew.
    ended(&setting, &healing, 8);
    let file = setting.path(".again.layers/heal/model.safetensors");
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let mut watch = Watch::default();
    setting.heal_with(&healing, "again", &mut watch).unwrap();
    assert_eq!(watch.resumed, None);
    same_weights(&setting);
}
