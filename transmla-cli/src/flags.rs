//! Options as the command line spells them, in messages that name fields of a recipe.
//!
//! The libraries write a setting as `transmla.toml` does (`style = "auto"`) or name its field in backquotes; here it becomes the
//! flag (`--style auto`, `--style`).

use std::error::Error;

use transmla_calib::CalibError;
use transmla_convert::{ConvertError, Hint, RECIPE_FIELDS};
use transmla_core::CoreError;

/// Settings that are no fields of a recipe, as the libraries and as the command line call them.
const OTHER_SETTINGS: [(&str, &str); 5] = [
    ("kv_budget", "--kv-budget"),
    ("samples", "--cal-nsamples"),
    ("sequence", "--cal-max-seqlen"),
    ("column", "--text-column"),
    ("replace", "--force"),
];

/// The message of an error, without that of its causes.
pub fn message(error: &(dyn Error + 'static)) -> String {
    match error.downcast_ref() {
        Some(ConvertError::Option(hint)) => of_hint(hint),
        _ if error.is::<ConvertError>() || error.is::<CalibError>() || error.is::<CoreError>() => {
            spell(&error.to_string())
        }
        _ => error.to_string(),
    }
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
        spelled = spelled.replace(&format!("`{field}`"), &flag(field));
        spelled = settings(&spelled, field);
    }
    for (name, flag) in OTHER_SETTINGS {
        spelled = spelled.replace(&format!("`{name}`"), flag);
    }
    spelled
}

fn flag(field: &str) -> String {
    format!("--{}", field.replace('_', "-"))
}

/// `field = "value"` as `--field value`, and `field = true` as `--field`.
fn settings(text: &str, field: &str) -> String {
    let start = format!("{field} = ");
    let mut parts = text.split(start.as_str());
    let mut spelled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        spelled.push_str(&flag(field));
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
            (
                "use `samples` 2, or fewer texts",
                "use --cal-nsamples 2, or fewer texts",
            ),
        ] {
            assert_eq!(spell(text), spelled);
        }
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
