//! What names a model on the command line: a folder, a GGUF file, a hub id or `embedded`; and what is often given instead.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

/// Hosts of the hub, which are often left without their scheme.
const HOSTS: [&str; 3] = ["huggingface.co/", "www.huggingface.co/", "hf.co/"];

/// What was given in place of the name of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NotAName {
    /// A web address, the id in it and the revision if it is not `main`.
    Address(Option<String>, Option<String>),
    /// A file in this folder.
    File(PathBuf),
}

impl fmt::Display for NotAName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(None, _) => {
                f.write_str("it is a web address; a model is a folder or a hub id of the form org/model")
            }
            Self::Address(Some(id), revision) => {
                write!(f, "it is a web address; pass the model's id: --model-path {id}")?;
                revision
                    .iter()
                    .try_for_each(|revision| write!(f, " --revision {revision}"))
            }
            Self::File(folder) => write!(f, "it is a file; pass the folder that it is in: {}", folder.display()),
        }
    }
}

impl Error for NotAName {}

/// The name of a model as it is given.
///
/// # Errors
/// A web address or a file that is no GGUF file, with the name that is wanted instead.
pub fn model_name(text: &str) -> Result<String, NotAName> {
    if let Some(address) = in_address(text) {
        return Err(of_address(address));
    }
    let path = Path::new(text);
    if path.is_file() && !text.to_ascii_lowercase().ends_with(".gguf") {
        let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        return Err(NotAName::File(folder.unwrap_or(Path::new(".")).to_path_buf()));
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

/// The id and the revision in the path of an address of the hub such as `org/model/tree/v2`.
fn of_address(path: &str) -> NotAName {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (id, behind) = match parts.as_slice() {
        ["datasets" | "spaces", ..] | [] | [_] => return NotAName::Address(None, None),
        [owner, name, behind @ ..] => (format!("{owner}/{name}"), behind),
    };
    let revision = match behind {
        ["tree" | "blob" | "resolve", revision, ..] if *revision != "main" => Some((*revision).to_owned()),
        _ => None,
    };
    NotAName::Address(Some(id), revision)
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
            let found = model_name(text).unwrap_err().to_string();
            assert!(found.ends_with(said), "{text}: {found}");
        }
    }

    #[test]
    fn files_are_in_folders() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        std::fs::write(&file, "").unwrap();
        let found = model_name(file.to_str().unwrap()).unwrap_err();
        assert_eq!(found, NotAName::File(folder.path().to_path_buf()));
        let gguf = folder.path().join("model.GGUF");
        std::fs::write(&gguf, "").unwrap();
        let gguf = gguf.to_str().unwrap();
        assert_eq!(model_name(gguf), Ok(gguf.to_owned()));
        let itself = folder.path().to_str().unwrap();
        for name in ["embedded", "org/model", "./m", "m", "a/model.safetensors", itself] {
            assert_eq!(model_name(name), Ok(name.to_owned()));
        }
    }
}
