//! What a GGUF file says of its model beside numbers: name, licence, base models, chat templates.

use std::path::Path;

use transmla_calib::{DEFAULT_TEMPLATE, NamedTemplate, chat_templates};
use transmla_core::checkpoint::{GgufValue, read_regular_text};
use transmla_core::hub::is_repo_id;

use crate::output::front_matter::{front_matter, is_local};
use crate::spec::error::ConvertError;

/// Most bytes of a model card.
const LARGEST_CARD: u64 = 4 << 20;

/// Keys of a card's front matter, and those of a file for them.
const LICENCE: [(&str, &str); 3] = [
    ("license", "general.license"),
    ("license_name", "general.license.name"),
    ("license_link", "general.license.link"),
];

/// The keys by what the folder's model card and its tokenizer's files say; what is not known is left out.
pub(super) fn keys(folder: &Path) -> Result<Vec<(String, GgufValue)>, ConvertError> {
    let card = folder.join("README.md");
    let card = match card.exists() {
        true => read_regular_text(&card, LARGEST_CARD)?,
        false => String::new(),
    };
    let mut keys = general(&front_matter(&card));
    keys.extend(templates(chat_templates(folder)?));
    Ok(keys)
}

/// Keys by the metadata of a card. A base model is an id on the hub, or is left out.
fn general(front: &[(String, Vec<String>)]) -> Vec<(String, GgufValue)> {
    let values = |name: &str| front.iter().find(|(key, _)| key == name).map(|(_, values)| values);
    let first = |name: &str| values(name).and_then(|values| values.first()).cloned();
    let text = |key: &str, value: &str| (key.to_owned(), GgufValue::Text(value.to_owned()));
    let mut keys = vec![text("general.type", "model")];
    keys.extend(first("model_name").map(|name| text("general.name", &name)));
    let licence = LICENCE.iter().filter_map(|(from, to)| {
        let value = first(from).filter(|value| !is_local(value))?;
        Some(text(to, &value))
    });
    keys.extend(licence);
    let bases: Vec<(&str, &str)> = values("base_model")
        .into_iter()
        .flatten()
        .filter(|id| is_repo_id(id))
        .filter_map(|id| id.split_once('/'))
        .collect();
    if let Ok(count @ 1..) = u32::try_from(bases.len()) {
        keys.push(("general.base_model.count".into(), GgufValue::U32(count)));
    }
    for (index, (owner, name)) in bases.into_iter().enumerate() {
        let key = |part: &str| format!("general.base_model.{index}.{part}");
        keys.push(text(&key("name"), name));
        keys.push(text(&key("organization"), owner));
        keys.push(text(
            &key("repo_url"),
            &format!("https://huggingface.co/{owner}/{name}"),
        ));
    }
    keys
}

/// The template for plain chats, and others by their names of letters, digits and `_`.
fn templates(templates: Vec<NamedTemplate>) -> Vec<(String, GgufValue)> {
    const KEY: &str = "tokenizer.chat_template";
    let mut keys = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for template in templates {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        let name: String = template.name.chars().map(plain).collect();
        if name.is_empty() || names.contains(&name) {
            continue;
        }
        let key = match name == DEFAULT_TEMPLATE {
            true => KEY.to_owned(),
            false => format!("{KEY}.{name}"),
        };
        keys.push((key, GgufValue::Text(template.source)));
        names.push(name);
    }
    names.retain(|name| name != DEFAULT_TEMPLATE);
    if !names.is_empty() {
        keys.push(("tokenizer.chat_templates".into(), GgufValue::Texts(names)));
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(keys: &[(String, GgufValue)]) -> Vec<(&str, &str)> {
        let texts = keys.iter().filter_map(|(key, value)| match value {
            GgufValue::Text(text) => Some((key.as_str(), text.as_str())),
            _ => None,
        });
        texts.collect()
    }

    #[test]
    fn a_card_tells_name_licence_and_base_models() {
        let card = "---\nmodel_name: Tiny MLA\nlicense: other\nlicense_name: tiny\nlicense_link: /home/me/LICENSE\n\
                    base_model:\n- \"org/tiny\"\n- /home/me/tiny\n- ./tiny\n---\n";
        let keys = general(&front_matter(card));
        assert_eq!(
            found(&keys),
            [
                ("general.type", "model"),
                ("general.name", "Tiny MLA"),
                ("general.license", "other"),
                ("general.license.name", "tiny"),
                ("general.base_model.0.name", "tiny"),
                ("general.base_model.0.organization", "org"),
                ("general.base_model.0.repo_url", "https://huggingface.co/org/tiny"),
            ]
        );
        assert!(keys.contains(&("general.base_model.count".into(), GgufValue::U32(1))));
        assert_eq!(found(&general(&front_matter("# A card"))), [("general.type", "model")]);
    }

    #[test]
    fn templates_go_by_their_names() {
        let template = |name: &str| NamedTemplate {
            name: name.into(),
            source: format!("of {name}"),
            file: String::new(),
        };
        let keys = templates(["tool use", "default", "tool-use", ""].map(template).into());
        assert_eq!(
            found(&keys),
            [
                ("tokenizer.chat_template.tool_use", "of tool use"),
                ("tokenizer.chat_template", "of default")
            ]
        );
        let names = GgufValue::Texts(vec!["tool_use".into()]);
        assert!(keys.contains(&("tokenizer.chat_templates".into(), names)));
        assert_eq!(templates(vec![template("default")]).len(), 1);
    }
}
