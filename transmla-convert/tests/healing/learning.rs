//! A real small model is healed in seconds.

use transmla_calib::{DatasetSource, SampleSpec, Split, TextTokenizer, load, sample};
use transmla_convert::{Healing, Trained};

use crate::setting::Setting;

fn stories() -> Setting {
    let mut setting = Setting::stories();
    let models = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../transmla-cli/models");
    let rows = load(
        &DatasetSource::Path(models.join("stories")),
        Split::Train,
        &Default::default(),
    );
    let tokenizer = TextTokenizer::from_folder(&models.join("stories260k")).unwrap();
    let spec = SampleSpec {
        samples: 80,
        sequence: 128,
        seed: 42,
    };
    setting.text = sample(&rows.unwrap().rows, &tokenizer, &spec).unwrap().tokens;
    setting
}

#[test]
fn held_out_divergence_falls() {
    let setting = stories();
    let healing = Healing {
        steps: 40,
        batch_size: 8,
        learning_rate: 0.01,
        held_out: 0.1,
        ..Healing::default()
    };
    let report = setting.heal(&healing, "healed");
    let (before, after) = (report.before(), report.written);
    assert!(after.kl < 0.5 * before.kl, "{before:?} {after:?}");
    assert!(after.cross_entropy < before.cross_entropy, "{before:?} {after:?}");
    assert!(report.kept > 0 && report.tokens == 40 * 8 * 128);
    let recipe = std::fs::read_to_string(setting.path("healed/transmla.toml")).unwrap();
    assert!(recipe.contains("[heal]") && recipe.contains("steps = 40"), "{recipe}");
    assert!(transmla_convert::Recipe::from_toml(&recipe).unwrap().heal.is_some());

    // The largest logits alone say nearly as much, and low-rank changes do nearly as well.
    for healing in [
        Healing {
            teacher_top_k: Some(16),
            ..healing.clone()
        },
        Healing {
            train: Trained::Lora,
            lora_rank: 8,
            learning_rate: 0.02,
            ..healing.clone()
        },
        Healing {
            train: Trained::All,
            ce_weight: 0.2,
            ..healing
        },
    ] {
        let report = setting.heal(&healing, "other");
        assert!(report.written.kl < 0.65 * report.before().kl, "{healing:?}: {report:?}");
    }
}
