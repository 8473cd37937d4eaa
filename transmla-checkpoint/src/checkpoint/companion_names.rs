//! The one list of what goes with a model's weights, by name: what a download fetches beside weights and configuration, and
//! what a converted model takes along.

/// Files that a model is not the same without.
const NEEDED: [&str; 12] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tekken.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
];

/// Folder of chat templates beside the usual one.
pub(super) const TEMPLATES: &str = "additional_chat_templates";

/// The model card.
pub(super) const CARD: &str = "README.md";

/// What licences and the like are called, in capitals.
const TERMS: [&str; 5] = ["LICENSE", "LICENCE", "COPYING", "NOTICE", "USE_POLICY"];

/// Their endings.
const TERMS_ENDINGS: [&str; 6] = ["TXT", "MD", "RST", "HTML", "PDF", "MODEL"];

/// Whether a file of a model's folder goes with the weights: tokenizer, chat templates, generation settings, licences and
/// notices, the model card.
pub fn is_companion(name: &str) -> bool {
    NEEDED.contains(&name) || name == CARD || is_template(name) || is_terms(name)
}

fn is_template(name: &str) -> bool {
    let file = name.strip_prefix(TEMPLATES).and_then(|rest| rest.strip_prefix('/'));
    file.is_some_and(|file| !file.contains('/') && file.len() > ".jinja".len() && file.ends_with(".jinja"))
}

pub(super) fn is_terms(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    let rest = TERMS.iter().find_map(|term| name.strip_prefix(term));
    rest.is_some_and(|rest| {
        let ending = rest.rsplit_once('.').map(|(_, ending)| ending);
        let begins = rest.is_empty() || rest.starts_with(['.', '-', '_']);
        begins && !rest.contains(['/', '\\']) && ending.is_none_or(|ending| TERMS_ENDINGS.contains(&ending))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn licences_go_by_many_names() {
        for name in [
            "LICENSE",
            "License.txt",
            "LICENCE.md",
            "LICENSE.model",
            "LICENSE-MODEL",
            "Notice",
            "USE_POLICY.md",
            "COPYING",
        ] {
            assert!(is_companion(name), "{name}");
        }
        for name in [
            "LICENSED",
            "license.py",
            "LICENSE/x",
            "notice.safetensors",
            "a/LICENSE",
            "config.json",
            "NOTICES",
        ] {
            assert!(!is_companion(name), "{name}");
        }
        assert!(is_companion("additional_chat_templates/rag.jinja"));
        for name in [
            "additional_chat_templates/.jinja",
            "additional_chat_templates/a/b.jinja",
            "additional_chat_templatesx.jinja",
        ] {
            assert!(!is_companion(name), "{name}");
        }
    }
}
