//! What a caller is told while files are fetched.

/// Told what the hub client does; the client itself never prints.
pub trait HubObserver: Send + Sync {
    /// Something happened.
    fn event(&self, event: &HubEvent<'_>);
}

/// What happens while files are fetched.
///
/// Names of files are checked and hold no control characters; problems may quote a server.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum HubEvent<'a> {
    /// A file is about to be fetched.
    Started {
        /// Its name in the repository.
        file: &'a str,
        /// Its size in bytes, if the hub tells.
        bytes: Option<u64>,
    },
    /// More of it has come.
    Progress {
        /// Bytes that are there, of earlier runs too.
        position: u64,
    },
    /// It is there, complete and verified.
    Finished {
        /// Its name in the repository.
        file: &'a str,
    },
    /// Another process is fetching it, which is waited for.
    Waiting {
        /// Its name in the repository.
        file: &'a str,
    },
    /// A request failed for a reason that may pass, and is about to be repeated.
    Retrying {
        /// What is fetched.
        what: &'a str,
        /// What failed.
        problem: &'a str,
    },
    /// The hub could not be asked; the copy in the cache is used, which may be an old one.
    FromCache {
        /// The repository.
        repo: &'a str,
        /// Why it could not be asked.
        problem: &'a str,
    },
}
