//! A hub on the loopback interface that takes uploads: repositories, branches, the questions before a commit, large files in one
//! piece or in parts at an address without the token, and commits.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// Files by name.
pub type Files = BTreeMap<String, Vec<u8>>;

#[derive(Debug, Default)]
pub struct Repository {
    pub private: bool,
    pub branches: BTreeMap<String, Files>,
    pub messages: Vec<String>,
}

/// What is on the hub, and what it was asked.
#[derive(Debug, Default)]
pub struct State {
    pub repositories: BTreeMap<String, Repository>,
    /// Contents of large files by their hash.
    pub large: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
    /// Large files are asked for in parts of so many bytes.
    pub chunk: Option<usize>,
    /// Requests whose path has these words are answered with this status and body, so many times.
    pub faults: Vec<(&'static str, u16, &'static str, usize)>,
    /// Method, path and token.
    pub requests: Vec<(String, String, Option<String>)>,
}

pub struct UploadServer {
    pub state: Arc<Mutex<State>>,
    host: String,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn sha256(contents: &[u8]) -> String {
    hex(&Sha256::digest(contents))
}

impl UploadServer {
    pub fn start() -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let listeners = [0, 1].map(|_| TcpListener::bind("127.0.0.1:0").unwrap());
        let hosts = listeners
            .each_ref()
            .map(|listener| format!("http://{}", listener.local_addr().unwrap()));
        let host = hosts[0].clone();
        for listener in listeners {
            let (state, hosts) = (state.clone(), hosts.clone());
            // It ends with the process.
            std::thread::spawn(move || {
                for connection in listener.incoming().flatten() {
                    // Clients hang up on what they do not like.
                    let _ = answer(&connection, &state, &hosts);
                }
            });
        }
        Self { state, host }
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    /// The files of a branch.
    pub fn files(&self, repo: &str, branch: &str) -> Files {
        self.state.lock().unwrap().repositories[repo].branches[branch].clone()
    }

    /// Methods and paths of the requests since the last call.
    pub fn take_requests(&self) -> Vec<String> {
        let requests = std::mem::take(&mut self.state.lock().unwrap().requests);
        let line = |(method, path, _): (String, String, Option<String>)| format!("{method} {path}");
        requests.into_iter().map(line).collect()
    }
}

struct Asked {
    method: String,
    path: String,
    body: Vec<u8>,
}

/// Status, headers and body of an answer.
type Reply = (u16, Vec<(&'static str, String)>, Vec<u8>);

fn answer(mut connection: &TcpStream, state: &Mutex<State>, hosts: &[String; 2]) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut words = line.split(' ').map(str::to_owned);
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let (mut token, mut length) = (None, 0);
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(": ") else {
            break;
        };
        match name.to_ascii_lowercase().as_str() {
            "authorization" => token = Some(value.to_owned()),
            "content-length" => length = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let (status, headers, body) = {
        let mut state = state.lock().unwrap();
        state.requests.push((method.clone(), path.clone(), token));
        respond(&mut state, &Asked { method, path, body }, hosts)
    };
    let mut head = format!(
        "HTTP/1.1 {status} Status\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    connection.write_all(&[format!("{head}\r\n").as_bytes(), &body].concat())
}

fn plain(status: u16, value: &Value) -> Reply {
    (status, Vec::new(), value.to_string().into_bytes())
}

fn respond(state: &mut State, asked: &Asked, hosts: &[String; 2]) -> Reply {
    let fault = state
        .faults
        .iter_mut()
        .find(|(words, .., times)| asked.path.contains(words) && *times > 0);
    if let Some((_, status, body, times)) = fault {
        *times -= 1;
        return (*status, Vec::new(), body.as_bytes().to_vec());
    }
    let path = asked.path.split('?').next().unwrap_or_default();
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match (asked.method.as_str(), parts.as_slice()) {
        ("POST", ["api", "repos", "create"]) => create(state, &json_of(&asked.body)),
        (_, ["api", "models", owner, name, rest @ ..]) => of_repository(state, asked, &format!("{owner}/{name}"), rest),
        ("POST", [_, _, "info", "lfs", "objects", "batch"]) => batch(state, &json_of(&asked.body), hosts),
        ("PUT", ["storage", oid]) => store(state, oid, asked.body.clone()),
        ("PUT", ["storage", oid, part]) => {
            let key = ((*oid).to_owned(), part.parse().unwrap());
            state.parts.insert(key, asked.body.clone());
            (200, vec![("ETag", format!("\"part-{part}\""))], Vec::new())
        }
        ("POST", ["complete", oid]) => complete(state, oid, &json_of(&asked.body)),
        ("POST", ["verify", oid]) => plain(if state.large.contains_key(*oid) { 200 } else { 404 }, &json!({})),
        _ => plain(404, &json!({ "error": "no such address" })),
    }
}

fn json_of(body: &[u8]) -> Value {
    serde_json::from_slice(body).unwrap()
}

fn create(state: &mut State, wanted: &Value) -> Reply {
    let id = format!(
        "{}/{}",
        wanted["organization"].as_str().unwrap(),
        wanted["name"].as_str().unwrap()
    );
    if state.repositories.contains_key(&id) {
        return plain(409, &json!({ "error": "it exists" }));
    }
    let first = Files::from([(".gitattributes".to_owned(), b"*.safetensors filter=lfs".to_vec())]);
    let repository = Repository {
        private: wanted["private"] == true,
        branches: [("main".to_owned(), first)].into(),
        messages: Vec::new(),
    };
    state.repositories.insert(id, repository);
    plain(200, &json!({}))
}

fn of_repository(state: &mut State, asked: &Asked, id: &str, rest: &[&str]) -> Reply {
    let Some(repository) = state.repositories.get_mut(id) else {
        return plain(404, &json!({ "error": "no such repository" }));
    };
    let [what, branch] = *rest else {
        return plain(404, &json!({}));
    };
    if what == "branch" {
        let main = repository.branches["main"].clone();
        return match repository.branches.insert(branch.to_owned(), main) {
            None => plain(200, &json!({})),
            Some(old) => {
                repository.branches.insert(branch.to_owned(), old);
                plain(409, &json!({ "error": "it exists" }))
            }
        };
    }
    let private = repository.private;
    let Some(files) = repository.branches.get_mut(branch) else {
        return plain(404, &json!({ "error": "no such revision" }));
    };
    match what {
        "revision" => listing(files, private),
        "preupload" => {
            let mode = |file: &Value| {
                let path = file["path"].as_str().unwrap();
                let mode = if path.ends_with(".safetensors") {
                    "lfs"
                } else {
                    "regular"
                };
                json!({ "path": path, "uploadMode": mode, "shouldIgnore": path.ends_with(".log") })
            };
            let files = json_of(&asked.body);
            let modes: Vec<Value> = files["files"].as_array().unwrap().iter().map(mode).collect();
            plain(200, &json!({ "files": modes }))
        }
        "commit" => match commit(&state.large, files, &asked.body) {
            Ok(message) => {
                repository.messages.push(message);
                plain(200, &json!({ "success": true, "commitOid": "ab".repeat(20) }))
            }
            Err(problem) => plain(400, &json!({ "error": problem })),
        },
        _ => plain(404, &json!({})),
    }
}

fn listing(files: &Files, private: bool) -> Reply {
    let entry = |(name, contents): (&String, &Vec<u8>)| {
        let git = Sha1::digest([format!("blob {}\0", contents.len()).as_bytes(), contents].concat());
        let mut entry = json!({ "rfilename": name, "size": contents.len(), "blobId": hex(&git) });
        if name.ends_with(".safetensors") {
            entry["lfs"] = json!({ "sha256": sha256(contents), "size": contents.len() });
        }
        entry
    };
    let siblings: Vec<Value> = files.iter().map(entry).collect();
    plain(
        200,
        &json!({ "sha": "cd".repeat(20), "private": private, "siblings": siblings }),
    )
}

fn commit(large: &BTreeMap<String, Vec<u8>>, files: &mut Files, lines: &[u8]) -> Result<String, String> {
    use base64::Engine;
    let mut message = String::new();
    for line in std::str::from_utf8(lines).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        let value = &line["value"];
        let name = || value["path"].as_str().unwrap().to_owned();
        match line["key"].as_str().unwrap() {
            "header" => message = value["summary"].as_str().unwrap().to_owned(),
            "file" => {
                let contents = base64::prelude::BASE64_STANDARD.decode(value["content"].as_str().unwrap());
                files.insert(name(), contents.unwrap());
            }
            "lfsFile" => {
                let oid = value["oid"].as_str().unwrap();
                let contents = large.get(oid).ok_or_else(|| format!("{oid} was not uploaded"))?;
                files.insert(name(), contents.clone());
            }
            other => return Err(format!("what is {other}?")),
        }
    }
    Ok(message)
}

fn batch(state: &State, wanted: &Value, hosts: &[String; 2]) -> Reply {
    let object = |object: &Value| {
        let (oid, size) = (
            object["oid"].as_str().unwrap(),
            object["size"].as_u64().unwrap() as usize,
        );
        if state.large.contains_key(oid) {
            return json!({ "oid": oid, "size": size });
        }
        let verify = json!({ "href": format!("{}/verify/{oid}", hosts[0]) });
        let upload = match state.chunk {
            None => json!({ "href": format!("{}/storage/{oid}", hosts[1]) }),
            Some(chunk) => {
                let mut header = json!({ "chunk_size": chunk.to_string() });
                for part in 1..=size.div_ceil(chunk) {
                    header[format!("{part:05}")] = json!(format!("{}/storage/{oid}/{part}", hosts[1]));
                }
                json!({ "href": format!("{}/complete/{oid}", hosts[0]), "header": header })
            }
        };
        json!({ "oid": oid, "size": size, "actions": { "upload": upload, "verify": verify } })
    };
    let objects: Vec<Value> = wanted["objects"].as_array().unwrap().iter().map(object).collect();
    plain(200, &json!({ "transfer": "basic", "objects": objects }))
}

fn store(state: &mut State, oid: &str, contents: Vec<u8>) -> Reply {
    if sha256(&contents) != oid {
        return plain(400, &json!({ "message": "these contents have another hash" }));
    }
    state.large.insert(oid.to_owned(), contents);
    (200, Vec::new(), Vec::new())
}

fn complete(state: &mut State, oid: &str, wanted: &Value) -> Reply {
    let parts = wanted["parts"].as_array().unwrap().iter();
    let mut contents = Vec::new();
    for part in parts {
        let number = part["partNumber"].as_u64().unwrap() as usize;
        assert_eq!(part["etag"], format!("\"part-{number}\""));
        contents.extend_from_slice(&state.parts[&(oid.to_owned(), number)]);
    }
    store(state, oid, contents)
}
