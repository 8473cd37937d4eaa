//! One commit of all files that are new or have changed.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

use super::Target;
use super::local_file::LocalFile;
use crate::hub::address::encode;
use crate::hub::client::Failure;
use crate::hub::names::Commit;
use crate::hub::send::Kind;

/// Files that are asked about together.
const TOGETHER: usize = 256;

/// How the hub stores a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    /// In the commit itself.
    Git,
    /// Beside it, by its SHA-256.
    Large,
    /// Not at all: the repository's `.gitignore` says so.
    Ignored,
}

#[derive(Deserialize)]
struct Modes {
    files: Vec<Mode>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Mode {
    path: String,
    upload_mode: String,
    #[serde(default)]
    should_ignore: bool,
}

/// Asks how the hub stores each file.
pub(super) fn storages(target: &Target<'_>, files: &[&LocalFile]) -> Result<Vec<Storage>, Failure> {
    let revision = encode(target.revision, false);
    let address = target
        .client
        .named(&format!("/api/models/{}/preupload/{revision}", target.repo))?;
    let mut storages = Vec::with_capacity(files.len());
    for files in files.chunks(TOGETHER) {
        let entry = |file: &&LocalFile| {
            let sample = BASE64_STANDARD.encode(&file.sample);
            json!({ "path": file.name, "size": file.size, "sample": sample })
        };
        let question = json!({ "files": files.iter().map(entry).collect::<Vec<_>>() });
        let modes: Modes = target.post(&address, Kind::Json, &question)?.json()?;
        for file in files {
            let mode = modes.files.iter().find(|mode| mode.path == file.name);
            storages.push(match mode.map(|mode| (mode.should_ignore, mode.upload_mode.as_str())) {
                Some((true, _)) => Storage::Ignored,
                // Its storage of large files takes no empty ones.
                Some((_, "regular")) => Storage::Git,
                Some((_, "lfs")) if file.size == 0 => Storage::Git,
                Some((_, "lfs")) => Storage::Large,
                _ => {
                    return Err(Failure::Refused(format!(
                        "the hub does not say how {} is stored",
                        file.name
                    )));
                }
            });
        }
    }
    Ok(storages)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Committed {
    commit_oid: Option<String>,
}

/// Commits files whose large contents are there; gives the commit, if the hub names it.
pub(super) fn commit(
    target: &Target<'_>,
    message: &str,
    files: &[(&LocalFile, Storage)],
) -> Result<Option<String>, Failure> {
    let mut lines = Vec::new();
    let mut line = |key: &str, value: Value| {
        lines.extend_from_slice(json!({ "key": key, "value": value }).to_string().as_bytes());
        lines.push(b'\n');
    };
    line("header", json!({ "summary": message, "description": "" }));
    for (file, storage) in files {
        match storage {
            Storage::Git => {
                let contents = file.contents();
                let contents = contents.map_err(|error| Failure::Local(format!("{}: {error}", file.name)))?;
                let contents = BASE64_STANDARD.encode(contents);
                line(
                    "file",
                    json!({ "path": file.name, "encoding": "base64", "content": contents }),
                );
            }
            Storage::Large => line(
                "lfsFile",
                json!({ "path": file.name, "algo": "sha256", "oid": file.sha256, "size": file.size }),
            ),
            Storage::Ignored => {}
        }
    }
    let revision = encode(target.revision, false);
    let address = target
        .client
        .named(&format!("/api/models/{}/commit/{revision}", target.repo))?;
    let retries = target.options.timeouts.retries;
    let reply = target.client.patiently(retries, "the commit", &mut || {
        target.client.post(&address, Kind::Lines, &lines)
    })?;
    let committed: Committed = reply.json()?;
    let id = committed.commit_oid.as_deref().and_then(Commit::parse);
    Ok(id.map(|id| id.as_str().to_owned()))
}
