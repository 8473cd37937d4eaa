//! Calibration on what the original writes itself.

use std::path::Path;

use transmla_calib::{ChatMessage, ChatTemplate, TextTokenizer};
use transmla_convert::{Conversion, LocalText, MethodName, Observer, Recipe, Setup, Silent, Stage, Warning};
use transmla_core::checkpoint::read_input_ids;

use crate::support::{Workplace, models, names, transmla};

const FILE: &str = "calibration/self.safetensors";

/// A template as chat models have them, of words that the model's vocabulary has letters for.
const TEMPLATE: &str = "{% for message in messages %}<s>{{ message.role }}: {{ message.content }}</s>{% endfor %}\
                        {% if add_generation_prompt %}<s>assistant: {% endif %}";

/// A copy of the model with a chat template or without.
fn place(template: bool) -> Workplace {
    let place = Workplace::new();
    if template {
        std::fs::write(place.path("model/chat_template.jinja"), TEMPLATE).unwrap();
    }
    place
}

/// Converts on a text of the original's own; gives whether it had to write it.
#[track_caller]
fn convert(place: &Workplace, more: &[&str]) -> bool {
    let own = [
        "--cal-dataset",
        "self",
        "--cal-max-seqlen",
        "96",
        "--eval-dataset",
        "stories",
        "--method",
        "transmla",
        "--json",
        "--no-report",
    ];
    let given: Vec<&str> = own
        .chunks(2)
        .filter(|pair| !more.contains(&pair[0]))
        .flatten()
        .copied()
        .collect();
    let report = transmla(&place.convert(&[&given[..], more].concat())).json();
    report["timings"]["write_text"].is_number()
}

fn own_ids(folder: &Path) -> Vec<Vec<u32>> {
    let tokens = read_input_ids(&folder.join(FILE)).unwrap();
    let row = |index| tokens.row(index).iter().map(|id| *id as u32).collect();
    (0..tokens.batch()).map(row).collect()
}

fn weights(place: &Workplace, name: &str) -> Vec<u8> {
    std::fs::read(place.path(name).join("model.safetensors")).unwrap()
}

#[test]
fn the_same_seed_writes_the_same_text_and_another_one_does_not() {
    for template in [false, true] {
        let place = place(template);
        assert!(convert(&place, &[]));
        let (first, ids) = (weights(&place, "outputs"), own_ids(&place.path("outputs")));
        assert_eq!((ids.len(), ids[0].len()), (4, 96));
        std::fs::rename(place.path("outputs"), place.path("first")).unwrap();
        // Elsewhere there is nothing to take it from: it is written again, the same.
        assert!(convert(&place, &[]));
        assert_eq!(own_ids(&place.path("outputs")), ids);
        assert_eq!(weights(&place, "outputs"), first);
        // In its place it is taken as it is, until something else is to be written.
        assert!(!convert(&place, &["--force"]));
        assert_eq!(weights(&place, "outputs"), first);
        assert!(convert(&place, &["--force", "--seed", "7"]));
        assert_ne!(own_ids(&place.path("outputs")), ids);
        let recipe = std::fs::read_to_string(place.path("outputs/transmla.toml")).unwrap();
        assert!(
            recipe.contains("cal-dataset = \"self\"") && recipe.contains(FILE),
            "{recipe}"
        );
        assert_eq!(place.contents(), ["first", "outputs"]);
    }
}

#[test]
fn chats_are_in_the_models_template_and_free_text_is_in_none() {
    let tokenizer = TextTokenizer::from_folder(&models().join("stories260k")).unwrap();
    let place = place(true);
    assert!(convert(&place, &["--cal-max-seqlen", "256"]));
    let template = ChatTemplate::from_folder(&place.path("model")).unwrap().unwrap();
    let opening = template.render(&[ChatMessage::user("")], false).unwrap();
    let opening = tokenizer.encode(opening.trim_end_matches("</s>"), false).unwrap();
    let mut openings = std::collections::HashSet::new();
    for row in own_ids(&place.path("outputs")) {
        let text = tokenizer.decode(&row, true).unwrap();
        assert_eq!(row[..4], opening[..4], "{text}");
        let assistant = text.find("assistant:").unwrap_or_else(|| panic!("no answer in {text}"));
        assert!(assistant > 20 && text.len() > assistant + 40, "{text}");
        openings.insert(text[..assistant].to_owned());
    }
    assert_eq!(openings.len(), 4);

    let place = self::place(false);
    assert!(convert(&place, &[]));
    for row in own_ids(&place.path("outputs")) {
        let text = tokenizer.decode(&row, true).unwrap();
        assert_eq!(row[0], 1, "{text}");
        assert!(
            !text.contains("assistant") && text.split_whitespace().count() > 20,
            "{text}"
        );
    }
}

#[test]
fn a_mix_has_its_share_and_the_first_samples_of_the_whole() {
    let place = place(true);
    assert!(convert(&place, &[]));
    let whole = own_ids(&place.path("outputs"));
    assert!(convert(&place, &["--force", "--cal-dataset", "stories:1,self:1"]));
    assert_eq!(own_ids(&place.path("outputs")), whole[..2]);
    let card = std::fs::read_to_string(place.path("outputs/README.md")).unwrap();
    assert!(card.contains("2 x chats that the original wrote"), "{card}");
    let plan = transmla(&place.convert(&["--dry-run", "--force", "--cal-dataset", "stories:1,self:1"])).succeeds();
    assert!(plan.contains("self:1 (self: written by the original)"), "{plan}");
}

#[test]
fn what_an_ended_run_has_written_is_taken_over_and_damage_is_not() {
    let place = place(false);
    assert!(convert(&place, &[]));
    let first = weights(&place, "outputs");
    let kept = std::fs::read(place.path("outputs").join(FILE)).unwrap();
    std::fs::rename(place.path("outputs"), place.path("first")).unwrap();
    let hidden = place.path(".outputs.layers");
    std::fs::create_dir(&hidden).unwrap();
    std::fs::write(hidden.join("self.safetensors"), &kept).unwrap();
    assert!(!convert(&place, &[]));
    assert_eq!(weights(&place, "outputs"), first);
    assert_eq!(place.contents(), ["first", "outputs"]);
    // The last byte is one of an id.
    let mut damaged = kept.clone();
    damaged[kept.len() - 8] ^= 1;
    std::fs::write(place.path("outputs").join(FILE), &damaged).unwrap();
    assert!(convert(&place, &["--force"]));
    assert_eq!(std::fs::read(place.path("outputs").join(FILE)).unwrap(), kept);
    // Of other weights it is no use.
    place.set_config("rms_norm_eps", 1e-4.into());
    assert!(convert(&place, &["--force"]));
}

#[test]
fn a_recipe_brings_its_text_and_ids_do_as_well() {
    let place = place(true);
    assert!(convert(&place, &[]));
    let first = weights(&place, "outputs");
    let (recipe, model, again) = (
        place.arg("outputs/transmla.toml"),
        place.arg("model"),
        place.arg("again"),
    );
    let by_recipe = [
        "convert",
        "--recipe",
        &recipe,
        "--model-path",
        &model,
        "--save-path",
        &again,
    ];
    let ran = transmla(&[&by_recipe[..], &["--json", "--no-report"]].concat()).json();
    assert!(ran["timings"]["compress"].is_number());
    assert!(ran["timings"]["write_text"].is_null(), "{ran}");
    assert_eq!(weights(&place, "again"), first);
    let file = place.arg(&format!("outputs/{FILE}"));
    let ids = [
        "--method",
        "transmla",
        "--cal-tokens",
        &file,
        "--eval-dataset",
        "stories",
        "--force",
    ];
    let mut words = place.convert(&ids);
    for option in ["--cal-dataset", "--cal-nsamples", "--cal-max-seqlen"] {
        let at = words.iter().position(|word| word == option).unwrap();
        words.drain(at..at + 2);
    }
    // It must not be read from the folder that it replaces.
    transmla(&words).fails(1, &["would replace the calibration tokens"]);
    std::fs::rename(place.path("outputs"), place.path("first")).unwrap();
    let moved: Vec<String> = words
        .iter()
        .map(|word| word.replace("outputs/calibration", "first/calibration"))
        .collect();
    transmla(&moved).succeeds();
    assert_eq!(weights(&place, "outputs"), first);
}

#[test]
fn nothing_is_measured_on_it() {
    let place = place(false);
    let words = ["self", "nothing is measured on it"];
    transmla(&["eval", "--model-path", &place.arg("model"), "--dataset", "self"]).fails(2, &words);
    transmla(&place.convert(&["--eval-dataset", "self"])).fails(2, &words);
    let recipe = format!(
        "model-path = {:?}\n[evaluation]\neval-dataset = \"self\"\n",
        place.arg("model")
    );
    std::fs::write(place.path("recipe.toml"), recipe).unwrap();
    let by_recipe = [
        "--recipe",
        &place.arg("recipe.toml"),
        "--save-path",
        &place.arg("outputs"),
    ];
    transmla(
        &[
            &["convert", "--kv-lora-rank", "28", "--qk-mqa-dim", "8"],
            &by_recipe[..],
        ]
        .concat(),
    )
    .fails(1, &words);
    // Where a mix begins with it, the first other text is measured on.
    let plan = transmla(&place.convert(&["--dry-run", "--cal-dataset", "self,stories"])).succeeds();
    assert!(plan.contains("windows of 32 tokens of stories"), "{plan}");
    // A step of refinement sees one sequence of each text.
    let steps = |options: &[&str]| {
        let mix = ["--dry-run", "--refine", "5", "--cal-dataset", "self,stories"];
        transmla(&place.convert(&[&mix[..], options].concat())).succeeds()
    };
    let plan = steps(&[]);
    assert!(plan.contains("refined in 5 steps of 2 sequences"), "{plan}");
    let plan = steps(&["--refine-batch", "1"]);
    assert!(plan.contains("refined in 5 steps\n"), "{plan}");
}

#[test]
fn a_template_that_refuses_chats_is_named() {
    let place = place(false);
    let refusal = "{{ raise_exception('this model does not chat') }}";
    std::fs::write(place.path("model/chat_template.jinja"), refusal).unwrap();
    let own = ["--cal-dataset", "self", "--eval-dataset", "stories"];
    transmla(&place.convert(&own)).fails(1, &["this model does not chat", "chat_template.jinja", "--cal-dataset"]);
    assert!(place.contents().is_empty(), "{:?}", place.contents());
}

/// Remembers what the original does not write.
#[derive(Default)]
struct Remarks(Vec<Warning>);

impl Observer for Remarks {
    fn begin(&mut self, _: Stage) {}
    fn advance(&mut self, _: u64, _: u64) {}
    fn end(&mut self, _: Stage, _: Option<f64>) {}
    fn warning(&mut self, warning: &Warning) {
        self.0.push(warning.clone());
    }
}

#[test]
fn a_chat_model_writes_half_of_its_text_where_there_is_the_memory() {
    let (enough, little) = (64 << 20, 1 << 20);
    let written = "wikitext2:1,self:1";
    for (template, max_memory, writing_memory, expected, remarks) in [
        (Some(TEMPLATE), enough, None, written, 0),
        (Some(TEMPLATE), little, Some(enough), written, 0),
        (Some(TEMPLATE), little, None, "wikitext2", 1),
        // A template that refuses plain chats is no reason not to convert.
        (
            Some("{{ raise_exception('tools only') }}"),
            enough,
            None,
            "wikitext2",
            0,
        ),
        (None, little, None, "wikitext2", 0),
    ] {
        let place = place(false);
        if let Some(template) = template {
            std::fs::write(place.path("model/chat_template.jinja"), template).unwrap();
        }
        let recipe = Recipe {
            model_path: place.arg("model"),
            ..Recipe::default()
        };
        let setup = Setup {
            max_memory,
            writing_memory,
            ..Setup::default()
        };
        let mut heard = Remarks::default();
        let planned = Conversion::new(recipe).unwrap().with(setup).plan(&mut heard).unwrap();
        assert_eq!(
            planned.plan().recipe().calibration.cal_dataset.as_deref(),
            Some(expected)
        );
        // Each text has as many samples as if it were the only one, and every step of refinement a sequence of each.
        let texts = if expected == written { 2 } else { 1 };
        let recipe = planned.plan().recipe();
        assert_eq!(
            (recipe.calibration.cal_nsamples, recipe.refine_batch),
            (Some(128 * texts), Some(texts))
        );
        let about_writing = |warning: &&Warning| matches!(warning, Warning::WritesNothing { .. });
        assert_eq!(heard.0.iter().filter(about_writing).count(), remarks, "{:?}", heard.0);
        assert_eq!(
            planned.texts().describe_evaluation(),
            "windows of 512 tokens (the model's whole context) of wikitext2"
        );
    }
}

#[test]
fn a_program_converts_as_the_command_does() {
    let place = place(true);
    let more = [
        "--cal-dataset",
        "stories:1,self:1",
        "--eval-dataset",
        "stories",
        "--method",
        "transmla",
        "--no-report",
    ];
    transmla(&place.convert(&more)).succeeds();
    let mut recipe = Recipe {
        model_path: place.arg("model"),
        method: MethodName::Transmla,
        qk_mqa_dim: Some(8),
        kv_lora_rank: Some(28),
        freqfold: "1".parse().unwrap(),
        ..Recipe::default()
    };
    recipe.calibration.cal_dataset = Some("stories:1,self:1".into());
    recipe.calibration.cal_nsamples = Some(4);
    recipe.calibration.cal_max_seqlen = Some(32);
    recipe.evaluation.eval_dataset = Some("stories".into());
    recipe.evaluation.eval_seqlen = Some(32);
    recipe.evaluation.eval_max_windows = Some(2);
    let stories = LocalText {
        name: "stories".into(),
        kind: "embedded".into(),
        folder: models().join("stories"),
    };
    let setup = Setup {
        texts: vec![stories],
        ..Setup::default()
    };
    let save_path = place.path("by-library");
    Conversion::new(recipe)
        .unwrap()
        .with(setup)
        .run(&save_path, &mut Silent)
        .unwrap();
    assert_eq!(names(&place.path("outputs")), names(&save_path));
    for file in ["transmla.toml", "README.md", "model.safetensors", FILE] {
        let [one, other] =
            [place.path("outputs"), save_path.clone()].map(|folder| std::fs::read(folder.join(file)).unwrap());
        assert!(one == other, "{file} differs");
    }
}
