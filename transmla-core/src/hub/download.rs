//! One file of a repository: what has come of it, the rest of it, and whether it is what the hub announced.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::address::encode;
use super::cache::RepoCache;
use super::client::{Answer, Client, Facts, Failure};
use super::hash::matches;
use super::listing::ListedFile;
use super::names::{BlobId, Commit, RepoKind};
use super::{HubEvent, HubOptions};

/// Largest file that is fetched: twenty times what the hub takes.
const LARGEST: u64 = 1 << 40;

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

/// Why a body was not copied to its end.
#[derive(Debug)]
enum Stopped {
    Reading(io::Error),
    Writing(io::Error),
    TooLong,
}

/// Copies a body behind the first `position` bytes, which then says how many there are.
///
/// At most as much as was announced is ever written.
fn copy(
    mut body: impl Read,
    file: &mut impl Write,
    size: Option<u64>,
    position: &mut u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), Stopped> {
    let mut buffer = vec![0; 128 << 10];
    loop {
        let count = match body.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Stopped::Reading(error)),
        };
        let end = position.saturating_add(count as u64);
        if end > size.unwrap_or(LARGEST) {
            return Err(Stopped::TooLong);
        }
        file.write_all(&buffer[..count]).map_err(Stopped::Writing)?;
        *position = end;
        progress(end);
    }
}

/// Opens what has come of a file, without following a link.
fn open_part(part: &Path) -> io::Result<File> {
    match fs::symlink_metadata(part) {
        Ok(found) if !found.is_file() => fs::remove_file(part)?,
        _ => {}
    }
    OpenOptions::new().create(true).truncate(false).write(true).open(part)
}

/// How much of a file has come; none if it is more than there is.
fn part_length(part: &Path, size: Option<u64>) -> io::Result<u64> {
    match fs::symlink_metadata(part) {
        Ok(found) if found.is_file() && size.is_none_or(|size| found.len() <= size) => Ok(found.len()),
        Ok(_) => fs::remove_file(part).map(|()| 0),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(error),
    }
}

/// Whether there is a file of a size, which may not be known.
fn is_of_size(path: &Path, size: Option<u64>) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file() && size.is_none_or(|size| found.len() == size))
}

fn local(path: &Path, error: &io::Error) -> Failure {
    Failure::Local(format!("cannot write {}: {}", path.display(), advice(error)))
}

/// An error with what to do about it.
fn advice(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            format!(
                "{error}; free some space, or set HF_HOME to a folder with more: what has come is kept and continued"
            )
        }
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}; set HF_HOME to a folder that you may write to")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with room for so many bytes.
    struct Disk(usize);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let count = bytes.len().min(self.0);
            self.0 -= count;
            match count {
                0 => Err(io::ErrorKind::StorageFull.into()),
                count => Ok(count),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_said_to_be_one() {
        let stopped = copy(&[0; 100][..], &mut Disk(60), Some(100), &mut 0, &mut |_| {}).unwrap_err();
        let Stopped::Writing(error) = stopped else {
            panic!("{stopped:?}");
        };
        let failure = local(Path::new("/hub/part"), &error);
        assert!(!failure.may_pass());
        let text = failure.explain("main", false);
        for words in ["/hub/part", "free some space", "HF_HOME", "kept"] {
            assert!(text.contains(words), "{text}");
        }
    }

    #[test]
    fn no_more_is_written_than_was_announced() {
        let mut written = Vec::new();
        let stopped = copy(io::repeat(7), &mut written, Some(1 << 20), &mut 0, &mut |_| {});
        assert!(matches!(stopped, Err(Stopped::TooLong)));
        assert!(written.len() <= 1 << 20);
        let mut positions = Vec::new();
        let mut end = 5;
        copy(&[1, 2, 3][..], &mut written, Some(8), &mut end, &mut |at| {
            positions.push(at)
        })
        .unwrap();
        assert_eq!((end, positions), (8, vec![8]));
    }

    #[test]
    fn a_part_that_cannot_be_one_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let part = folder.path().join("part");
        assert_eq!(part_length(&part, Some(3)).unwrap(), 0);
        fs::write(&part, "1234").unwrap();
        assert_eq!(
            (part_length(&part, None).unwrap(), part_length(&part, Some(4)).unwrap()),
            (4, 4)
        );
        assert_eq!(part_length(&part, Some(3)).unwrap(), 0);
        assert!(!part.exists());
    }

    #[cfg(unix)]
    #[test]
    fn a_link_is_no_part() {
        let folder = tempfile::tempdir().unwrap();
        let (part, other) = (folder.path().join("part"), folder.path().join("other"));
        fs::write(&other, "precious").unwrap();
        std::os::unix::fs::symlink(&other, &part).unwrap();
        assert_eq!(part_length(&part, Some(100)).unwrap(), 0);
        std::os::unix::fs::symlink(&other, &part).unwrap();
        open_part(&part).unwrap().write_all(b"new").unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&part).unwrap(), "new");
    }
}
