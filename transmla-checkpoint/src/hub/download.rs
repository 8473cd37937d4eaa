//! One file of a repository: fetched, continued, and checked to be what the hub announced.

use std::fs;
use std::io::{self, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::address::encode;
use super::cache::RepoCache;
use super::client::{Answer, Client, Facts, Failure};
use super::hash::matches;
use super::listing::ListedFile;
use super::names::{BlobId, Commit};
use super::observer::HubEvent;
use super::options::HubOptions;
use super::part::{LARGEST, Stopped, advice, copy, is_of_size, local, open_part, part_length};
use crate::repository::RepoKind;

/// An attempt that brings this much counts as no failure.
const PROGRESS: u64 = 1 << 20;

/// One file to fetch.
pub(super) struct Download<'a> {
    pub client: &'a Client<'a>,
    pub options: &'a HubOptions,
    pub cache: &'a RepoCache,
    pub kind: RepoKind,
    pub id: &'a str,
    pub commit: &'a Commit,
    pub listed: &'a ListedFile,
    /// The listed name, checked.
    pub name: PathBuf,
}

/// How an attempt to get more of a file ended, if not with all of it.
enum Broken {
    /// What has come is kept, and continued.
    Off(Failure),
    /// What has come is of no use.
    Useless(String),
    /// There is no point in trying again.
    Failed(Failure),
}

impl From<Failure> for Broken {
    fn from(failure: Failure) -> Self {
        match failure.may_pass() {
            true => Self::Off(failure),
            false => Self::Failed(failure),
        }
    }
}

impl Download<'_> {
    /// Puts the file into the snapshot, unless it is there.
    pub fn run(&self) -> Result<(), Failure> {
        if self.is_there() {
            return Ok(());
        }
        let (blob, size) = self.announced()?;
        let local = |what: &str| {
            let what = format!("cannot {what} the cache");
            move |error: io::Error| Failure::Local(format!("{what}: {}", advice(&error)))
        };
        self.cache.create().map_err(local("write to"))?;
        let lock = self.cache.lock(&blob, &mut || {
            self.options.tell(&HubEvent::Waiting {
                file: &self.listed.name,
            });
        });
        let _lock = lock.map_err(local("lock a file of"))?;
        let path = self.cache.blob(&blob);
        // Of an earlier commit, of another process, or left damaged by another program.
        let complete = is_of_size(&path, size) && matches(&path, &blob).map_err(local("read"))?;
        if !complete {
            self.options.tell(&HubEvent::Started {
                file: &self.listed.name,
                bytes: size,
            });
            self.fetch(&blob, size)?;
            self.options.tell(&HubEvent::Finished {
                file: &self.listed.name,
            });
        }
        self.cache
            .link(self.commit, &self.name, &blob)
            .map_err(local("write to"))
    }

    /// Whether the snapshot has the file, as large as it is listed.
    fn is_there(&self) -> bool {
        let path = self.cache.snapshot(self.commit).join(&self.name);
        is_of_size(&path, self.listed.size)
    }

    fn url(&self) -> String {
        let prefix = match self.kind {
            RepoKind::Model => "",
            RepoKind::Dataset => "datasets/",
        };
        let (id, commit, name) = (self.id, self.commit.as_str(), encode(&self.listed.name, true));
        self.client.at(&format!("{prefix}{id}/resolve/{commit}/{name}"))
    }

    /// The hash and the size that the hub announces, by its listing and by the file's headers.
    fn announced(&self) -> Result<(BlobId, Option<u64>), Failure> {
        let url = self.url();
        let retries = self.options.timeouts.retries;
        let facts = self
            .client
            .patiently(retries, &self.listed.name, &mut || self.client.facts(&url))?;
        if facts.commit.is_none() {
            return Err(Failure::Refused(
                "the server does not say of which commit it is (X-Repo-Commit), so it is no hub; check HF_ENDPOINT"
                    .into(),
            ));
        }
        let blob = facts.blob()?;
        self.check_same(&facts, &blob)?;
        if let Some(listed) = self.listed.blob.as_ref().filter(|listed| **listed != blob) {
            return Err(Failure::Refused(format!(
                "the hub lists it with the hash {listed} and sends {blob}; try again later"
            )));
        }
        let size = self.listed.size.or(facts.size);
        match size {
            Some(size) if size > LARGEST => Err(Failure::Refused(format!(
                "the hub announces {size} bytes, more than any file that it takes"
            ))),
            size => Ok((blob, size)),
        }
    }

    /// Checks that an answer is about the same file of the same commit.
    fn check_same(&self, facts: &Facts, blob: &BlobId) -> Result<(), Failure> {
        let commit = self.commit.as_str();
        if let Some(other) = facts.commit.as_deref().filter(|other| *other != commit) {
            let other: String = other.chars().take(100).collect();
            return Err(Failure::Refused(format!(
                "the hub sent another commit than {commit}: {other:?}"
            )));
        }
        match facts.blob() {
            Ok(other) if other != *blob && facts.linked => Err(Failure::Refused(format!(
                "the hub announced the hash {blob} and sends {other}; try again later"
            ))),
            _ => Ok(()),
        }
    }

    /// Fetches the contents until they are complete and have their hash.
    ///
    /// A part that breaks off is continued; one that turns out wrong is thrown away and fetched anew, once.
    fn fetch(&self, blob: &BlobId, size: Option<u64>) -> Result<(), Failure> {
        let part = self.cache.part(blob);
        let local = |error: io::Error| local(&part, &error);
        let (mut attempt, mut anew) = (0, false);
        loop {
            let have = part_length(&part, size).map_err(local)?;
            let useless = match self.extend(&part, have, blob, size) {
                Ok(()) if matches(&part, blob).map_err(local)? => {
                    return fs::rename(&part, self.cache.blob(blob)).map_err(local);
                }
                Ok(()) => format!("what came does not have the announced hash {blob}"),
                Err(Broken::Useless(problem)) => problem,
                Err(Broken::Failed(failure)) => return Err(failure),
                Err(Broken::Off(failure)) => {
                    let now = part_length(&part, size).map_err(local)?;
                    if now >= have.saturating_add(PROGRESS) {
                        attempt = 0;
                    }
                    if attempt >= self.options.timeouts.retries {
                        return Err(failure);
                    }
                    self.client.pause(attempt, &self.listed.name, &failure);
                    attempt += 1;
                    continue;
                }
            };
            fs::remove_file(&part).map_err(local)?;
            // What an earlier run left may be bad without any fault of today's server.
            if anew {
                return Err(Failure::Refused(format!(
                    "{useless}, twice; nothing of it is kept: try again later, or another HF_ENDPOINT"
                )));
            }
            anew = true;
            let failure = Failure::Refused(useless);
            self.client.pause(0, &self.listed.name, &failure);
        }
    }

    /// Gets what is missing of the contents.
    fn extend(&self, part: &Path, have: u64, blob: &BlobId, size: Option<u64>) -> Result<(), Broken> {
        let local = |error: io::Error| Broken::Failed(local(part, &error));
        let mut file = open_part(part).map_err(local)?;
        if size == Some(have) {
            return Ok(());
        }
        let answer = match self.client.get(&self.url(), have) {
            Err(Failure::Status(416, _)) if have > 0 => {
                return Err(Broken::Useless(format!(
                    "the server has nothing behind the first {have} bytes"
                )));
            }
            answer => answer?,
        };
        self.check_same(&answer.facts, blob)?;
        let start = start_of(&answer, have, size)?;
        file.set_len(start).map_err(local)?;
        file.seek(SeekFrom::Start(start)).map_err(local)?;
        let mut end = start;
        let copied = copy(answer.body, &mut file, size, &mut end, &mut |position| {
            self.options.tell(&HubEvent::Progress { position });
        });
        let broken_off = |why: &str| {
            let of = size.map_or_else(String::new, |size| format!(" of {size}"));
            Broken::Off(Failure::Network(format!(
                "the transfer broke off after {end}{of} bytes{why}"
            )))
        };
        match copied {
            Ok(()) if size.is_some_and(|size| end < size) => return Err(broken_off("")),
            Ok(()) => {}
            Err(Stopped::Writing(error)) => return Err(local(error)),
            Err(Stopped::Reading(error)) => return Err(broken_off(&format!(" ({error})"))),
            Err(Stopped::TooLong) => {
                let most = size.unwrap_or(LARGEST);
                return Err(Broken::Useless(format!(
                    "the server sends more than the announced {most} bytes"
                )));
            }
        }
        file.sync_data().map_err(local)
    }
}

/// The byte of the file that an answer's body begins with.
fn start_of(answer: &Answer, have: u64, size: Option<u64>) -> Result<u64, Broken> {
    // A server may ignore that only the rest was asked for.
    if answer.status == 200 {
        return Ok(0);
    }
    match answer.range {
        Some((first, total)) if first == have && (total.is_none() || size.is_none() || total == size) => Ok(have),
        found => Err(Broken::Useless(format!(
            "the server sends another part than that from byte {have} on ({found:?})"
        ))),
    }
}
