//! Events while files are downloaded or uploaded.

/// Receives the events of the hub client, which itself never prints.
pub trait HubObserver: Send + Sync {
    /// Called at each event.
    fn event(&self, event: &HubEvent<'_>);
}

/// An event while files are downloaded or uploaded.
///
/// Names of files are checked and hold no control characters; problems may quote a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// A file is about to be downloaded.
    Started {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes, if the hub tells.
        bytes: Option<u64>,
    },
    /// A file is about to be read, for its hash, before it is uploaded.
    Reading {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// A file is about to be sent.
    Sending {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes.
        bytes: u64,
    },
    /// More of it has been received, read or sent.
    Progress {
        /// Bytes so far, including those of earlier runs.
        position: u64,
    },
    /// It is complete, and verified if it was received.
    Finished {
        /// Its name in the repository.
        file: &'a str,
    },
    /// Another process is downloading it; the client waits.
    Waiting {
        /// Its name in the repository.
        file: &'a str,
    },
    /// A request failed for a temporary reason and is about to be retried.
    Retrying {
        /// What is requested.
        what: &'a str,
        /// The reason.
        problem: &'a str,
    },
    /// The hub could not be reached; the copy in the cache is used, which may be outdated.
    FromCache {
        /// The repository.
        repo: &'a str,
        /// Why it could not be reached.
        problem: &'a str,
    },
}
