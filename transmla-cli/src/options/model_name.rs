//! What names a model on the command line: a folder, a hub id or `embedded`; and what is often given instead.

use std::path::Path;

/// Hosts of the hub, which are often left without their scheme.
const HOSTS: [&str; 3] = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];

/// The name of a model as it is given.
///
/// # Errors
/// A web address or a file, with the name that is wanted instead.
pub fn model_name(text: &str) -> Result<String, String> {
    if let Some(address) = in_address(text) {
        return Err(instead_of_address(address));
    }
    let path = Path::new(text);
    if text.to_ascii_lowercase().ends_with(".gguf") && !path.is_dir() {
        return Err(
            "a GGUF file is for llama.cpp and cannot be converted; pass the folder or hub id of the model in \
                    safetensors that it was made from"
                .into(),
        );
    }
    if path.is_file() {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new(".")).display();
        return Err(format!("it is a file; pass the folder that it is in: {folder}"));
    }
    Ok(text.to_owned())
}

/// What stands behind the host of a web address; nothing for what is none.
fn in_address(text: &str) -> Option<&str> {
    let behind_scheme = ["https://", "http://"]
        .iter()
        .find_map(|scheme| text.strip_prefix(scheme));
    match behind_scheme {
        Some(rest) => Some(rest.split_once('/').map_or("", |(_, path)| path)),
        None => HOSTS.iter().find_map(|host| text.strip_prefix(host)),
    }
}

/// The id, and the revision if it is not `main`, in an address of the hub such as `org/model/tree/v2`.
fn instead_of_address(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    match parts.as_slice() {
        ["datasets" | "spaces", ..] | [] | [_] => {
            "it is a web address; a model is a folder or a hub id of the form org/model".into()
        }
        [owner, name, "tree" | "blob" | "resolve", revision, ..] if *revision != "main" => {
            format!("it is a web address; pass the model's id: --model-path {owner}/{name} --revision {revision}")
        }
        [owner, name, ..] => format!("it is a web address; pass the model's id: --model-path {owner}/{name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_id_in_them() {
        for (text, said) in [
            ("https://huggingface.co/org/model", "--model-path org/model"),
            ("https://huggingface.co/org/model/", "--model-path org/model"),
            ("https://huggingface.co/org/model/tree/main", "--model-path org/model"),
            ("http://mirror:8080/org/model?x=y", "--model-path org/model"),
            ("hf.co/org/model", "--model-path org/model"),
            (
                "huggingface.co/org/model/blob/v2/config.json",
                "--model-path org/model --revision v2",
            ),
            ("https://huggingface.co/datasets/org/text", "form org/model"),
            ("https://huggingface.co", "form org/model"),
        ] {
            let found = model_name(text).unwrap_err();
            assert!(found.ends_with(said), "{text}: {found}");
        }
    }

    #[test]
    fn files_are_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, "").unwrap();
        let found = model_name(file.to_str().unwrap()).unwrap_err();
        assert!(found.ends_with(folder.path().to_str().unwrap()), "{found}");
        assert!(model_name("a/model.GGUF").unwrap_err().contains("llama.cpp"));
        let itself = folder.path().to_str().unwrap();
        for name in ["embedded", "org/model", "./m", "m", "a/model.safetensors", itself] {
            assert_eq!(model_name(name), Ok(name.to_owned()));
        }
    }
}
