//! A folder with the files of one commit.

use std::path::PathBuf;

use super::cache::RepoCache;
use super::client::{Client, Failure};
use super::download::Download;
use super::listing::{Listing, list};
use super::names::{Commit, plain_path};
use super::observer::HubEvent;
use super::options::HubOptions;
use crate::error::CheckpointError;
use crate::repository::{RepoKind, is_repo_id};

/// Most repetitions of the first question to a hub.
const LISTING_RETRIES: u32 = 2;

/// The folder of a revision with the wanted files, those fetched that the cache lacks.
///
/// Where the hub cannot be asked, a copy that is there is used, as the Python client does.
pub(super) fn snapshot(
    kind: RepoKind,
    id: &str,
    revision: &str,
    options: &HubOptions,
    wanted: &dyn Fn(&str) -> bool,
) -> Result<PathBuf, CheckpointError> {
    let fail = |problem: String| CheckpointError::Hub {
        repo: id.escape_debug().to_string(),
        problem,
    };
    if !is_repo_id(id) {
        return Err(fail("not an id of the hub, which has the form owner/name".into()));
    }
    if plain_path(revision).is_none() {
        return Err(fail(format!("{revision:?} is not a branch, tag or commit")));
    }
    let cache = options.cache.as_ref().ok_or_else(|| {
        fail("there is no cache folder: set HF_HOME to the folder that is to hold what is downloaded".into())
    })?;
    let repo = RepoCache::new(cache, kind, id);
    let cached = repo.cached(revision);
    if options.offline {
        return cached.ok_or_else(|| {
            let cache = cache.display();
            fail(format!(
                "revision {revision} is not in the cache {cache} and the hub is switched off (HF_HUB_OFFLINE)"
            ))
        });
    }
    let client = Client::new(options).map_err(|failure| fail(failure.explain(revision, false)))?;
    let explain = |failure: &Failure| failure.explain(revision, client.has_token());
    // With a copy at hand nobody waits for a hub that is down, and without one not for long.
    let most = if cached.is_some() { 0 } else { LISTING_RETRIES };
    let retries = options.timeouts.retries.min(most);
    let listing = client.patiently(retries, "the listing of files", &mut || {
        list(&client, kind, id, revision)
    });
    let listing = match (listing, cached) {
        (Ok(listing), _) => listing,
        (Err(failure), Some(folder)) => {
            options.tell(&HubEvent::FromCache {
                repo: id,
                problem: &explain(&failure),
            });
            return Ok(folder);
        }
        (Err(failure), None) => return Err(fail(explain(&failure))),
    };
    let mut found = false;
    for listed in listing.files.iter().filter(|file| wanted(&file.name)) {
        let name = plain_path(&listed.name).ok_or_else(|| {
            let sent: String = listed.name.chars().take(300).collect();
            fail(format!(
                "the hub lists the file {sent:?}, which lies outside the repository or has no usable name"
            ))
        })?;
        let download = Download {
            client: &client,
            options,
            cache: &repo,
            kind,
            id,
            commit: &listing.commit,
            listed,
            name,
        };
        let about = |failure: Failure| match failure {
            Failure::Status(404, _) => "the hub lists it and does not have it (status 404); try again later".to_owned(),
            other => explain(&other),
        };
        download
            .run()
            .map_err(|failure| fail(format!("{}: {}", listed.name, about(failure))))?;
        found = true;
    }
    if !found {
        return Err(fail("it has none of the files that are needed".into()));
    }
    // Once all is there, so that without the hub a branch means its last complete copy.
    let Listing { commit, .. } = listing;
    enter(&repo, revision, &commit)?;
    Ok(repo.snapshot(&commit))
}

fn enter(repo: &RepoCache, revision: &str, commit: &Commit) -> Result<(), CheckpointError> {
    let entered = repo.point(revision, commit);
    entered.map_err(|error| CheckpointError::io("write to the cache", &repo.snapshot(commit), error))
}
