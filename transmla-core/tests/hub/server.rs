//! A hub of a few files on the loopback interface.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use transmla_core::hub::HubOptions;

/// What a revision resolves to.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub sha: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// The hub's contents and what it was asked.
#[derive(Debug, Default)]
pub struct State {
    /// By `models/owner/name` or `datasets/owner/name`.
    pub repositories: BTreeMap<String, Commit>,
    /// Answered instead of everything.
    pub status: Option<u16>,
    /// Answered instead of this file.
    pub broken_file: Option<String>,
    /// Instead of the listing.
    pub listing: Option<String>,
    /// Paths asked for, in order.
    pub requests: Vec<String>,
    /// The last `authorization` header.
    pub authorization: Option<String>,
}

pub struct Server {
    pub state: Arc<Mutex<State>>,
    address: String,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let (shared, root) = (state.clone(), address.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                let Ok(connection) = connection else { break };
                match answer(&connection, &shared, &root) {
                    Some(path) if path == "/stop" => break,
                    _ => {}
                }
            }
        });
        Self {
            state,
            address,
            thread: Some(thread),
        }
    }

    /// Puts a repository on the hub; a later call moves its branch to another commit.
    pub fn put(&self, repository: &str, sha: &str, files: &[(&str, &[u8])]) {
        let files = files
            .iter()
            .map(|(name, contents)| ((*name).to_owned(), contents.to_vec()));
        let commit = Commit {
            sha: sha.to_owned(),
            files: files.collect(),
        };
        self.state
            .lock()
            .unwrap()
            .repositories
            .insert(repository.to_owned(), commit);
    }

    pub fn options(&self, cache: &Path) -> HubOptions {
        HubOptions {
            cache: Some(cache.to_path_buf()),
            endpoint: Some(self.address.clone()),
            ..HubOptions::default()
        }
    }

    /// Files whose contents were sent since the last call.
    pub fn take_downloads(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        let mut names: Vec<String> = requests
            .iter()
            .filter_map(|path| path.split_once("/resolve/")?.1.split_once('/'))
            .map(|(_, name)| name.to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Stops listening: later requests are refused.
    pub fn stop(&mut self) {
        if let Some(thread) = self.thread.take() {
            let host = self.address.trim_start_matches("http://");
            if let Ok(mut stream) = TcpStream::connect(host) {
                let _ = stream.write_all(b"GET /stop HTTP/1.1\r\n\r\n");
            }
            let _ = thread.join();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Answers one request and returns its path.
fn answer(connection: &TcpStream, state: &Mutex<State>, root: &str) -> Option<String> {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let path = lines.next()?.split(' ').nth(1)?.to_owned();
    let mut start = None;
    let mut authorization = None;
    for line in lines.take_while(|line| !line.is_empty()) {
        let (name, value) = line.split_once(": ")?;
        match name.to_ascii_lowercase().as_str() {
            "range" => {
                start = value
                    .trim_start_matches("bytes=")
                    .split('-')
                    .next()?
                    .parse::<usize>()
                    .ok()
            }
            "authorization" => authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let mut state = state.lock().ok()?;
    state.requests.push(path.clone());
    state.authorization = authorization;
    let response = respond(&state, &path, start.unwrap_or(0), root);
    let mut connection = connection;
    connection.write_all(&response).ok()?;
    Some(path)
}

fn respond(state: &State, path: &str, start: usize, root: &str) -> Vec<u8> {
    if let Some(status) = state.status {
        return http(status, &[], b"{\"error\": \"as configured\"}");
    }
    if let Some(rest) = path.strip_prefix("/api/") {
        let Some((repository, _)) = rest.split_once("/revision/") else {
            return http(404, &[], b"");
        };
        let Some(commit) = state.repositories.get(repository) else {
            return http(404, &[], b"{\"error\": \"Repository not found\"}");
        };
        let listing = state.listing.clone().unwrap_or_else(|| {
            let names: Vec<_> = commit
                .files
                .keys()
                .map(|n| serde_json::json!({"rfilename": n}))
                .collect();
            serde_json::json!({"sha": commit.sha, "siblings": names}).to_string()
        });
        return http(200, &[], listing.as_bytes());
    }
    // Large files are on another server, as on the hub.
    let (path, elsewhere) = match path.strip_prefix("/cdn") {
        Some(rest) => (rest, true),
        None => (path, false),
    };
    let found = path.split_once("/resolve/").and_then(|(repository, rest)| {
        let (_, name) = rest.split_once('/')?;
        let kind = if repository.starts_with("/datasets/") {
            ""
        } else {
            "models"
        };
        let key = format!("{kind}{repository}");
        let commit = state.repositories.get(key.trim_start_matches('/'))?;
        Some((commit, name, commit.files.get(name)?))
    });
    let Some((commit, name, contents)) = found else {
        return http(404, &[], b"Entry not found");
    };
    if state.broken_file.as_deref() == Some(name) {
        return http(500, &[], b"");
    }
    let etag = format!("\"{}-{}\"", commit.sha, name.replace('/', "-"));
    if name.ends_with(".safetensors") && !elsewhere {
        let location = format!("{root}/cdn{path}");
        let headers = [
            ("X-Repo-Commit", commit.sha.as_str()),
            ("X-Linked-Etag", &etag),
            ("Location", &location),
        ];
        return http(302, &headers, b"");
    }
    let rest = &contents[start.min(contents.len())..];
    let range = format!("bytes {start}-{}/{}", contents.len().saturating_sub(1), contents.len());
    let headers = [
        ("X-Repo-Commit", commit.sha.as_str()),
        ("ETag", &etag),
        ("Content-Range", &range),
    ];
    http(206, &headers, rest)
}

fn http(status: u16, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!(
        "HTTP/1.1 {status} Status\r\nContent-Length: {}\r\nConnection: close\r\n",
        body.len()
    );
    for (name, value) in headers {
        text += &format!("{name}: {value}\r\n");
    }
    text += "\r\n";
    [text.as_bytes(), body].concat()
}
