//! Options as the command line spells them, in messages that name fields of a recipe.
//!
//! The libraries write a setting as `transmla.toml` does (`style = "auto"`) or name its field in backquotes; here it becomes the
//! flag (`--style auto`, `--style`).

use std::error::Error;

use transmla_calib::CalibError;
use transmla_convert::{ConvertError, Hint, RECIPE_FIELDS};
use transmla_core::{CheckpointError, CoreError};

/// Fields that are no part of a recipe, and their flags.
const OTHER_FLAGS: [(&str, &str); 2] = [("kv_budget", "--kv-budget"), ("replace", "--force")];

/// Fields of a healing that can be out of their range.
const HEAL_FIELDS: [&str; 13] = [
    "steps",
    "batch_size",
    "micro_batch",
    "lora_rank",
    "checks",
    "teacher_top_k",
    "learning_rate",
    "weight_decay",
    "max_grad_norm",
    "kl_weight",
    "ce_weight",
    "warmup",
    "held_out",
];

/// Arguments and fields of `transmla-calib`, and their flags.
const TEXT_FLAGS: [(&str, &str); 3] = [
    ("column", "--text-column"),
    ("samples", "--cal-nsamples"),
    ("sequence", "--cal-max-seqlen"),
];

/// The message of an error, without that of its causes.
pub fn message(error: &(dyn Error + 'static)) -> String {
    if let Some(error) = error.downcast_ref() {
        return of_text(error);
    }
    // A cause inside the same type is boxed.
    let boxed = || error.downcast_ref::<Box<ConvertError>>().map(AsRef::as_ref);
    match error.downcast_ref().or_else(boxed) {
        Some(ConvertError::Option(hint)) => of_hint(hint),
        Some(ConvertError::Calib(error) | ConvertError::Tokenizer(error)) => of_text(error),
        Some(ConvertError::ReadText { source, .. }) => message(source.as_ref()),
        Some(known) => spell(&known.to_string()),
        None if error.is::<CoreError>() || error.is::<CheckpointError>() => spell(&error.to_string()),
        None => error.to_string(),
    }
}

fn of_text(error: &CalibError) -> String {
    let fields = TEXT_FLAGS.iter();
    fields.fold(error.to_string(), |text, (field, flag)| replace(&text, field, flag))
}

fn of_hint(hint: &Hint) -> String {
    let (flag, found, suggestion) = (flag(hint.field), &hint.found, &hint.suggestion);
    let mut allowed = hint.allowed.clone();
    for field in RECIPE_FIELDS {
        allowed = allowed.replace(field, &field.replace('_', "-"));
    }
    format!("{flag} {found} does not fit this model: {allowed}; try {flag} {suggestion}")
}

/// A text of a library with flags in the place of settings.
pub fn spell(text: &str) -> String {
    let mut spelled = text.to_owned();
    for field in RECIPE_FIELDS {
        spelled = replace(&spelled, field, &flag(field));
    }
    for field in HEAL_FIELDS {
        spelled = replace(&spelled, field, &flag(field));
    }
    for (field, flag) in OTHER_FLAGS {
        spelled = replace(&spelled, field, flag);
    }
    spelled
}

fn replace(text: &str, field: &str, flag: &str) -> String {
    settings(&text.replace(&format!("`{field}`"), flag), field, flag)
}

fn flag(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

/// `field = "value"` as `--field value`, and `field = true` as `--field`.
fn settings(text: &str, field: &str, flag: &str) -> String {
    let start = format!("{field} = ");
    let mut parts = text.split(start.as_str());
    let mut spelled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        spelled.push_str(flag);
        let quoted = part.strip_prefix('"').and_then(|rest| rest.split_once('"'));
        match (quoted, part.strip_prefix("true")) {
            (Some((value, rest)), _) => spelled.push_str(&format!(" {value}{rest}")),
            (None, Some(rest)) => spelled.push_str(rest),
            (None, None) => spelled.push_str(&format!(" {part}")),
        }
    }
    spelled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_become_flags() {
        for (text, spelled) in [
            ("style = \"auto\" writes it", "--style auto writes it"),
            ("leave format = \"gguf\" out", "leave --format gguf out"),
            ("a norm (use_qkv_norm = true) would", "a norm (--use-qkv-norm) would"),
            ("give `freqfold` a number", "give --freqfold a number"),
            ("kv_lora_rank is required", "kv_lora_rank is required"),
        ] {
            assert_eq!(spell(text), spelled);
        }
    }

    #[test]
    fn errors_of_texts_name_flags() {
        let few = transmla_calib::divide_samples(1, &[1.0, 1.0]).unwrap_err();
        let expected = "cannot mix calibration texts: 2 texts cannot share 1 samples; use --cal-nsamples 2";
        assert_eq!(message(&few), expected);
        assert_eq!(message(&ConvertError::Calib(few)), expected);
    }

    /// A cause may be boxed, and says flags all the same.
    #[test]
    fn causes_name_flags() {
        let cause = ConvertError::FewSamples {
            found: 1,
            needed: 2,
            why: "give `freqfold` a number",
        };
        assert!(message(&Box::new(cause)).ends_with("give --freqfold a number"));
    }

    #[test]
    fn hints_name_flags() {
        let hint = Hint {
            field: "collapse",
            found: "3".into(),
            allowed: "head_dim 16 / qk_mqa_dim 8 = 2 frequencies fall on each slot".into(),
            suggestion: "2".into(),
        };
        let said = message(&ConvertError::Option(hint));
        assert_eq!(
            said,
            "--collapse 3 does not fit this model: head_dim 16 / qk-mqa-dim 8 = 2 frequencies fall on each slot; try \
             --collapse 2"
        );
    }
}
