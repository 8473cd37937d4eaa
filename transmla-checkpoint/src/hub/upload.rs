//! Files of a folder into a repository of the hub, in one commit.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `local_file` | a file with its hashes |
//! | `large_files` | contents that go beside the commit |
//! | `commit` | which those are, and the commit |
//!
//! The hub's protocol, as its Python client speaks it: the repository and the branch are made if they are missing; files that
//! are there with the same hash are left out; the hub is asked how it stores the others; large ones go by git's batch protocol
//! to the address that it names, unless their contents are there; a commit of lines of JSON ends it. What was stored by a
//! run that failed is not sent again.

mod commit;
mod large_files;
mod local_file;

use std::path::Path;

use serde_json::{Value, json};

use self::commit::{Storage, commit, storages};
use self::local_file::LocalFile;
use super::address::{Address, encode};
use super::client::{Client, Failure};
use super::listing::{Listing, list};
use super::names::plain_path;
use super::options::HubOptions;
use super::send::{Kind, Reply};
use crate::error::CheckpointError;
use crate::repository::{RepoKind, is_repo_id};

/// Where files go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upload<'a> {
    /// The repository, `owner/name`.
    pub repo: &'a str,
    /// The branch, which is made if it is missing.
    pub revision: &'a str,
    /// Whether a repository that is made is private. One that is there must be, too.
    pub private: bool,
    /// The first line of the commit.
    pub message: &'a str,
}

/// What became of an upload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Uploaded {
    /// The address of the repository at the branch, for people.
    pub address: String,
    /// The commit; nothing if all was there, or the hub does not name it.
    pub commit: Option<String>,
    /// Files that are new or have changed.
    pub committed: Vec<String>,
    /// Bytes of large files that were sent: not of those whose contents the hub had.
    pub large_bytes: u64,
    /// Files that were there.
    pub unchanged: Vec<String>,
    /// Files that the repository's `.gitignore` leaves out.
    pub ignored: Vec<String>,
}

/// A repository, a branch, and how they are reached.
struct Target<'a> {
    client: &'a Client<'a>,
    options: &'a HubOptions,
    repo: &'a str,
    revision: &'a str,
}

/// Uploads files of a folder, by their names in it.
///
/// # Errors
/// [`CheckpointError::Hub`] if there is no token or it does not suffice, the hub is switched off or cannot be reached, refuses
/// something, or has the repository for all to see where it is to be private; a file that cannot be read.
pub fn upload(
    folder: &Path,
    names: &[String],
    upload: &Upload<'_>,
    options: &HubOptions,
) -> Result<Uploaded, CheckpointError> {
    let fail = |problem: String| CheckpointError::Hub {
        repo: upload.repo.to_owned(),
        problem,
    };
    check(upload, options).map_err(|problem| fail(problem.to_owned()))?;
    let files: Vec<LocalFile> = names
        .iter()
        .map(|name| LocalFile::read(folder, name, options))
        .collect::<Result<_, _>>()?;
    let client = Client::new(options).map_err(|failure| fail(failure.explain(upload.revision, true)))?;
    let target = Target {
        client: &client,
        options,
        repo: upload.repo,
        revision: upload.revision,
    };
    target.run(&files, upload).map_err(|failure| fail(explain(&failure)))
}

/// What is wrong with what was asked for, before anybody else is.
fn check(upload: &Upload<'_>, options: &HubOptions) -> Result<(), &'static str> {
    match () {
        () if !is_repo_id(upload.repo) || !upload.repo.contains('/') => {
            Err("it is no id of a repository, which has the form owner/name")
        }
        () if plain_path(upload.revision).is_none() => Err("the revision is no name of a branch"),
        () if options.offline => Err("the hub is switched off (HF_HUB_OFFLINE)"),
        () if options.token.is_none() => Err(
            "there is no token: make one with write access in the settings of your account on the hub and set HF_TOKEN",
        ),
        () => Ok(()),
    }
}

impl Target<'_> {
    fn run(&self, files: &[LocalFile], upload: &Upload<'_>) -> Result<Uploaded, Failure> {
        self.make_repository(upload.private)?;
        self.make_branch()?;
        let retries = self.options.timeouts.retries;
        let there = self.client.patiently(retries, "the listing of files", &mut || {
            list(self.client, RepoKind::Model, self.repo, self.revision)
        })?;
        if upload.private && there.private == Some(false) {
            return Err(Failure::Refused(
                "it is there and everybody can see it: make it private on the hub, or take another name".into(),
            ));
        }
        let (unchanged, changed): (Vec<&LocalFile>, Vec<&LocalFile>) = files.iter().partition(|file| has(&there, file));
        let names = |files: &[&LocalFile]| files.iter().map(|file| file.name.clone()).collect();
        let mut uploaded = Uploaded {
            address: self
                .client
                .at(&format!("{}/tree/{}", self.repo, encode(self.revision, true))),
            unchanged: names(&unchanged),
            ..Uploaded::default()
        };
        let storages = storages(self, &changed)?;
        let stored: Vec<(&LocalFile, Storage)> = changed.into_iter().zip(storages).collect();
        for (file, _) in stored.iter().filter(|(_, storage)| *storage == Storage::Large) {
            let sent = large_files::store(self, file).map_err(|failure| about(&file.name, failure))?;
            uploaded.large_bytes += if sent { file.size } else { 0 };
        }
        let (ignored, kept): (Vec<_>, Vec<_>) = stored
            .into_iter()
            .partition(|(_, storage)| *storage == Storage::Ignored);
        uploaded.ignored = ignored.iter().map(|(file, _)| file.name.clone()).collect();
        uploaded.committed = kept.iter().map(|(file, _)| file.name.clone()).collect();
        if !kept.is_empty() {
            uploaded.commit = commit(self, upload.message, &kept)?;
        }
        Ok(uploaded)
    }

    /// Makes the repository, if it is not there.
    fn make_repository(&self, private: bool) -> Result<(), Failure> {
        let (owner, name) = self.repo.split_once('/').unwrap_or(("", self.repo));
        let mut wanted = json!({ "type": "model", "organization": owner, "name": name });
        // Otherwise it is as the owner's settings say.
        if private {
            wanted["private"] = json!(true);
            wanted["visibility"] = json!("private");
        }
        let made = self.post(&self.client.named("/api/repos/create")?, Kind::Json, &wanted);
        self.unless_there(made)
    }

    /// Makes the branch, if it is not there; the main one is, and what others propose to change is made elsewhere.
    fn make_branch(&self) -> Result<(), Failure> {
        if self.revision == "main" || self.revision.starts_with("refs/") {
            return Ok(());
        }
        let branch = encode(self.revision, false);
        let address = self
            .client
            .named(&format!("/api/models/{}/branch/{branch}", self.repo))?;
        let made = self.post(&address, Kind::Json, &json!({}));
        self.unless_there(made)
    }

    /// Whether something is there now: 409 says that it was; who may write to it alone need not be allowed to make it.
    fn unless_there(&self, made: Result<Reply, Failure>) -> Result<(), Failure> {
        let is_there = || list(self.client, RepoKind::Model, self.repo, self.revision).is_ok();
        match made {
            Ok(_) | Err(Failure::Status(409, _)) => Ok(()),
            Err(Failure::Status(403, _)) if is_there() => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    /// Sends JSON, again while that fails for a reason that may pass.
    fn post(&self, address: &Address, kind: Kind, value: &Value) -> Result<Reply, Failure> {
        let text = value.to_string();
        let what = address.to_string();
        self.client.patiently(self.options.timeouts.retries, &what, &mut || {
            self.client.post(address, kind, text.as_bytes())
        })
    }
}

/// Whether a repository has a file as it is here.
fn has(there: &Listing, file: &LocalFile) -> bool {
    let listed = there.files.iter().find(|listed| listed.name == file.name);
    let blob = listed.and_then(|listed| listed.blob.as_ref());
    blob.is_some_and(|blob| file.is(blob))
}

/// A failure that names the file.
fn about(name: &str, failure: Failure) -> Failure {
    match failure {
        Failure::Refused(problem) => Failure::Refused(format!("{name}: {problem}")),
        Failure::Local(problem) => Failure::Local(format!("{name}: {problem}")),
        Failure::Network(problem) => Failure::Network(format!("{name}: {problem}")),
        status @ Failure::Status(..) => status,
    }
}

/// What to do about a failure.
fn explain(failure: &Failure) -> String {
    const AGAIN: &str = "upload again; what is there is not sent again";
    match failure {
        Failure::Status(401, _) => {
            "the hub does not know the token: make a new one and set HF_TOKEN (status 401)".into()
        }
        Failure::Status(403, _) => {
            "the token does not allow it: it needs write access to the owner's repositories (status 403)".into()
        }
        Failure::Status(404, _) => {
            "there is no such owner or repository, or the token is not for it: check the id (status 404)".into()
        }
        Failure::Status(status, _) => format!("the server answers with status {status}; {AGAIN}"),
        Failure::Network(problem) => format!("{problem}; check the network and {AGAIN}"),
        Failure::Refused(problem) | Failure::Local(problem) => problem.clone(),
    }
}
