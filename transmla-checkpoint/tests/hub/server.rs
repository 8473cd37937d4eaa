//! A hub of a few files on the loopback interface, with a second host for large files, that misbehaves when it is told to.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use sha1::Sha1;
use sha2::{Digest, Sha256};
use transmla_checkpoint::hub::{HubOptions, HubTimeouts};

/// What a revision resolves to.
#[derive(Debug, Clone, Default)]
pub struct Commit {
    pub sha: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// What is wrong with the answers about a file.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Another status.
    Status(u16),
    /// Another status, of the contents alone.
    BodyStatus(u16),
    /// The `ETag`, and what would be in its place for a large file.
    Etag(Option<String>),
    /// The `X-Repo-Commit`.
    Commit(Option<String>),
    /// A redirect to this `Location`; `HERE` stands for the request's own address, `CDN` for the other host.
    Redirect(Option<String>),
    /// A bit of the body is wrong.
    Flipped,
    /// Only so many bytes come of what was announced.
    Short(usize),
    /// The same, and no length is announced.
    ShortWithoutLength(usize),
    /// More comes than was announced.
    TooLong,
    /// A range is not looked at.
    IgnoresRange,
    /// Any request of a part is refused, as if there were nothing behind it.
    NothingBehind,
    /// Another part than was asked for.
    OtherRange,
    /// Nothing comes after so many bytes.
    Stalls(usize),
    /// One byte comes at a time.
    Drips,
    /// Nothing comes for so many hundredths of a second, then everything.
    Slow(u32),
    /// Compressed, by the headers.
    Compressed,
}

/// A request that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `hub`, or `cdn` for the other host.
    pub host: &'static str,
    pub method: String,
    pub path: String,
    pub from: Option<usize>,
    pub authorization: Option<String>,
}

/// The hub's contents and what it was asked.
#[derive(Debug, Default)]
pub struct State {
    /// By `models/owner/name` or `datasets/owner/name`.
    pub repositories: BTreeMap<String, Commit>,
    /// Answered instead of everything.
    pub status: Option<u16>,
    /// What is wrong with a file's answers, and for how many requests of its body.
    pub faults: Vec<(String, Fault, usize)>,
    /// Instead of the listing.
    pub listing: Option<String>,
    /// The listing never ends.
    pub endless_listing: bool,
    /// The listing has neither sizes nor hashes.
    pub names_only: bool,
    /// The listing with sizes and hashes takes the server too long.
    pub names_alone_in_time: bool,
    pub requests: Vec<Asked>,
}

pub struct Server {
    pub state: Arc<Mutex<State>>,
    hosts: Arc<[String; 2]>,
    stopped: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

/// A commit's name.
pub fn commit(number: u8) -> String {
    format!("{number:02x}").repeat(20)
}

/// The hash that a file goes by: large files are those with weights.
pub fn hash(name: &str, contents: &[u8]) -> String {
    let bytes = match name.ends_with(".safetensors") {
        true => Sha256::digest(contents).to_vec(),
        false => {
            let prefixed = [format!("blob {}\0", contents.len()).as_bytes(), contents].concat();
            Sha1::digest(prefixed).to_vec()
        }
    };
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

impl Server {
    pub fn start() -> Self {
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let hosts = listeners
            .each_ref()
            .map(|it| format!("http://{}", it.local_addr().unwrap()));
        let hosts = Arc::new(hosts);
        let state = Arc::new(Mutex::new(State::default()));
        let stopped = Arc::new(AtomicBool::new(false));
        let thread = |(listener, host): (TcpListener, &'static str)| {
            let (state, hosts, stopped) = (state.clone(), hosts.clone(), stopped.clone());
            std::thread::spawn(move || {
                for connection in listener.incoming() {
                    if stopped.load(Ordering::Relaxed) {
                        break;
                    }
                    let Ok(connection) = connection else { break };
                    let (state, hosts, stopped) = (state.clone(), hosts.clone(), stopped.clone());
                    std::thread::spawn(move || answer(&connection, host, &state, &hosts, &stopped));
                }
            })
        };
        let threads = listeners.into_iter().zip(["hub", "cdn"]).map(thread).collect();
        Self {
            state,
            hosts,
            stopped,
            threads,
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
        let mut state = self.state.lock().unwrap();
        state.repositories.insert(repository.to_owned(), commit);
    }

    /// Makes the answers about a file faulty, for ever or for some requests of its body.
    pub fn fault(&self, file: &str, fault: Fault, times: usize) {
        self.state.lock().unwrap().faults.push((file.to_owned(), fault, times));
    }

    pub fn heal(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Without patience, so that tests take no time.
    pub fn options(&self, cache: &Path) -> HubOptions {
        HubOptions {
            cache: Some(cache.to_path_buf()),
            endpoint: Some(self.hosts[0].clone()),
            timeouts: HubTimeouts {
                connect: Duration::from_secs(5),
                answer: Duration::from_millis(500),
                stall: Duration::from_millis(500),
                retries: 3,
                pause: Duration::from_millis(5),
            },
            ..HubOptions::default()
        }
    }

    /// The requests since the last call.
    pub fn take_requests(&self) -> Vec<Asked> {
        std::mem::take(&mut self.state.lock().unwrap().requests)
    }

    /// Files whose contents were asked for since the last call.
    pub fn take_downloads(&self) -> Vec<String> {
        let requests = self.take_requests();
        let of_contents = requests.iter().filter(|asked| asked.method == "GET");
        let mut names: Vec<String> = of_contents
            .filter_map(|asked| asked.path.split_once("/resolve/")?.1.split_once('/'))
            .map(|(_, name)| name.to_owned())
            .collect();
        names.sort();
        names.dedup();
        names
    }

    /// Stops listening: later requests are refused.
    pub fn stop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        for host in self.hosts.iter() {
            let _ = TcpStream::connect(host.trim_start_matches("http://"));
        }
        self.threads.drain(..).for_each(|thread| {
            let _ = thread.join();
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An answer as it is sent.
#[derive(Debug, Default)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    /// Announced, if it is not the body's, or not at all.
    length: Option<Option<usize>>,
    /// Send so many bytes and then nothing, without closing the connection.
    stalls: Option<usize>,
    drips: bool,
    endless: bool,
    /// Fiftieths of a second before the body.
    waits: u32,
}

/// Answers one request.
fn answer(
    mut connection: &TcpStream,
    host: &'static str,
    state: &Mutex<State>,
    hosts: &[String; 2],
    stopped: &AtomicBool,
) {
    let mut lines = BufReader::new(connection).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let mut words = first.split(' ').map(str::to_owned);
    let mut asked = Asked {
        host,
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        from: None,
        authorization: None,
    };
    for line in lines.take_while(|line| !line.is_empty()) {
        let Some((name, value)) = line.split_once(": ") else {
            return;
        };
        match name.to_ascii_lowercase().as_str() {
            "range" => asked.from = value.trim_start_matches("bytes=").trim_end_matches('-').parse().ok(),
            "authorization" => asked.authorization = Some(value.to_owned()),
            _ => {}
        }
    }
    let reply = {
        let Ok(mut state) = state.lock() else { return };
        state.requests.push(asked.clone());
        respond(&mut state, &asked, hosts)
    };
    // Clients hang up on what they do not like.
    let _ = send(&mut connection, &asked, &reply, stopped);
}

fn send(connection: &mut &TcpStream, asked: &Asked, reply: &Reply, stopped: &AtomicBool) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} Status\r\nConnection: close\r\n", reply.status);
    if let Some(length) = reply.length.unwrap_or(Some(reply.body.len())) {
        head += &format!("Content-Length: {length}\r\n");
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all(format!("{head}\r\n").as_bytes())?;
    if asked.method == "HEAD" {
        return Ok(());
    }
    let pause = |times: u32| {
        for _ in 0..times {
            if !stopped.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(20));
            }
        }
    };
    pause(reply.waits);
    if reply.drips {
        for byte in &reply.body {
            connection.write_all(&[*byte])?;
            pause(1);
        }
        return Ok(());
    }
    if reply.endless {
        loop {
            connection.write_all(&reply.body)?;
        }
    }
    let first = reply.stalls.unwrap_or(reply.body.len());
    connection.write_all(&reply.body[..first])?;
    if reply.stalls.is_some() {
        pause(250);
    }
    Ok(())
}

fn respond(state: &mut State, asked: &Asked, hosts: &[String; 2]) -> Reply {
    if let Some(status) = state.status {
        return plain(status, b"{\"error\": \"as configured\"}");
    }
    if let Some(rest) = asked.path.strip_prefix("/api/") {
        return listing(state, rest);
    }
    let path = asked.path.split('?').next().unwrap_or_default();
    let found = path.split_once("/resolve/").and_then(|(repository, rest)| {
        let (_, name) = rest.split_once('/')?;
        let kind = if repository.starts_with("/datasets/") {
            ""
        } else {
            "models"
        };
        let key = format!("{kind}{repository}");
        let commit = state.repositories.get(key.trim_start_matches('/'))?;
        Some((commit.sha.clone(), name.to_owned(), commit.files.get(name)?.clone()))
    });
    let Some((sha, name, contents)) = found else {
        return plain(404, b"Entry not found");
    };
    let mut faults = Vec::new();
    let of_body = asked.method == "GET";
    for (file, fault, times) in &mut state.faults {
        if *file == name && *times > 0 {
            faults.push(fault.clone());
            *times -= usize::from(of_body && !(asked.host == "hub" && is_large(&name)));
        }
    }
    file(asked, &sha, &name, contents, &faults, hosts)
}

fn is_large(name: &str) -> bool {
    name.ends_with(".safetensors")
}

fn listing(state: &State, rest: &str) -> Reply {
    let (repository, _) = rest.split_once("/revision/").unwrap_or((rest, ""));
    let Some(commit) = state.repositories.get(repository) else {
        return plain(404, b"{\"error\": \"Repository not found\"}");
    };
    if state.names_alone_in_time && rest.contains("blobs=true") {
        return plain(504, b"");
    }
    if state.endless_listing {
        let name = "x".repeat(1000);
        let entries = format!(r#"{{"rfilename": "{name}"}},"#).repeat(1000);
        return Reply {
            endless: true,
            length: Some(None),
            ..plain(200, [br#"{"siblings": ["#, entries.as_bytes()].concat().as_slice())
        };
    }
    let listing = state.listing.clone().unwrap_or_else(|| {
        let entry = |(name, contents): (&String, &Vec<u8>)| match (
            state.names_only || state.names_alone_in_time,
            is_large(name),
        ) {
            (true, _) => serde_json::json!({"rfilename": name}),
            (_, true) => {
                let (size, sha256) = (contents.len(), hash(name, contents));
                let large = serde_json::json!({"sha256": sha256, "size": size, "pointerSize": 130});
                serde_json::json!({"rfilename": name, "size": size, "blobId": "f".repeat(40), "lfs": large})
            }
            _ => serde_json::json!({"rfilename": name, "size": contents.len(), "blobId": hash(name, contents)}),
        };
        let names: Vec<_> = commit.files.iter().map(entry).collect();
        serde_json::json!({"sha": commit.sha, "siblings": names}).to_string()
    });
    plain(200, listing.as_bytes())
}

fn plain(status: u16, body: &[u8]) -> Reply {
    Reply {
        status,
        body: body.to_vec(),
        ..Reply::default()
    }
}

fn file(asked: &Asked, sha: &str, name: &str, contents: Vec<u8>, faults: &[Fault], hosts: &[String; 2]) -> Reply {
    let (large, on_hub) = (is_large(name), asked.host == "hub");
    let (mut commit, mut tag) = (Some(sha.to_owned()), Some(format!("\"{}\"", hash(name, &contents))));
    let size = contents.len();
    let from = asked.from.unwrap_or(0);
    let mut reply = match asked.from {
        Some(from) if from >= size => plain(416, b""),
        Some(from) => Reply {
            headers: vec![("Content-Range".into(), format!("bytes {from}-{}/{size}", size - 1))],
            ..plain(206, &contents[from..])
        },
        None => plain(200, &contents),
    };
    for fault in faults {
        match fault.clone() {
            Fault::Status(status) if on_hub => return plain(status, b""),
            Fault::BodyStatus(status) if asked.method == "GET" => return plain(status, b""),
            Fault::Etag(other) => tag = other,
            Fault::Commit(other) => commit = other,
            Fault::Redirect(location) if on_hub => {
                let here = format!("{}{}", hosts[0], asked.path);
                let cdn = format!("{}{}", hosts[1], asked.path);
                let location = location.map(|text| text.replace("HERE", &here).replace("CDN", &cdn));
                let mut headers = vec![("X-Repo-Commit".to_owned(), sha.to_owned())];
                headers.extend(location.map(|location| ("Location".to_owned(), location)));
                return Reply {
                    headers,
                    ..plain(302, b"")
                };
            }
            _ if on_hub && large => {}
            Fault::Flipped => reply.body[size / 2 - from.min(size / 2)] ^= 4,
            Fault::Short(bytes) => {
                reply.length = Some(Some(reply.body.len()));
                reply.body.truncate(bytes);
            }
            Fault::ShortWithoutLength(bytes) => {
                reply.length = Some(None);
                reply.body.truncate(bytes);
            }
            Fault::TooLong => reply.body.extend_from_slice(b"and more"),
            Fault::IgnoresRange => reply = plain(200, &contents),
            Fault::NothingBehind if asked.from.is_some() => return plain(416, b""),
            Fault::OtherRange if asked.from.is_some() => {
                reply = plain(206, &contents);
                reply
                    .headers
                    .push(("Content-Range".into(), format!("bytes 0-{}/{size}", size - 1)));
            }
            Fault::Stalls(bytes) => reply.stalls = Some(bytes.min(reply.body.len())),
            Fault::Drips => reply.drips = true,
            Fault::Slow(hundredths) => reply.waits = hundredths / 2,
            Fault::Compressed => reply.headers.push(("Content-Encoding".into(), "gzip".into())),
            _ => {}
        }
    }
    if large && on_hub {
        // Large files are on another host, as on the hub.
        reply = Reply {
            headers: vec![
                ("Location".into(), format!("{}{}", hosts[1], asked.path)),
                ("X-Linked-Size".into(), size.to_string()),
                ("ETag".into(), "\"of-the-redirect\"".into()),
            ],
            ..plain(302, b"")
        };
    }
    let tag_name = if large && on_hub { "X-Linked-Etag" } else { "ETag" };
    let tag = match large && !on_hub {
        true => Some("\"of-another-kind\"".to_owned()),
        false => tag,
    };
    reply.headers.extend(tag.map(|tag| (tag_name.to_owned(), tag)));
    if on_hub {
        reply
            .headers
            .extend(commit.map(|commit| ("X-Repo-Commit".to_owned(), commit)));
    }
    reply
}
