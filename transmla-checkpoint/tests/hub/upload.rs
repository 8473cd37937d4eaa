//! Uploads: what arrives, what is not sent again, what is refused.

use std::path::Path;
use std::time::Duration;

use transmla_checkpoint::CheckpointError;
use transmla_checkpoint::hub::{HubOptions, HubTimeouts, Upload, Uploaded, upload};

use crate::upload_server::{UploadServer, sha256};

/// 10 bytes that go beside the commit.
const WEIGHTS: &[u8] = b"0123456789";

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("sub")).unwrap();
    for (name, contents) in [
        ("README.md", &b"# Tiny"[..]),
        ("model.safetensors", WEIGHTS),
        ("empty.safetensors", b""),
        ("sub/a b.jinja", b"{{ x }}"),
    ] {
        std::fs::write(folder.path().join(name), contents).unwrap();
    }
    folder
}

fn options(server: &UploadServer) -> HubOptions {
    HubOptions {
        token: Some("hf_secret".into()),
        endpoint: Some(server.host().to_owned()),
        timeouts: HubTimeouts {
            connect: Duration::from_secs(5),
            answer: Duration::from_secs(5),
            stall: Duration::from_secs(5),
            retries: 2,
            pause: Duration::from_millis(5),
        },
        ..HubOptions::default()
    }
}

fn names() -> Vec<String> {
    ["README.md", "empty.safetensors", "model.safetensors", "sub/a b.jinja"]
        .map(str::to_owned)
        .into()
}

fn to(repo: &str) -> Upload<'_> {
    Upload {
        repo,
        revision: "main",
        private: false,
        message: "Upload",
    }
}

fn send(folder: &Path, options: &HubOptions) -> Result<Uploaded, CheckpointError> {
    upload(folder, &names(), &to("me/tiny"), options)
}

fn problem(result: Result<Uploaded, CheckpointError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_folder_arrives_in_one_commit() {
    let (server, folder) = (UploadServer::start(), folder());
    let uploaded = send(folder.path(), &options(&server)).unwrap();
    assert_eq!(uploaded.committed, names());
    assert_eq!(uploaded.commit, Some("ab".repeat(20)));
    assert_eq!(uploaded.address, format!("{}/me/tiny/tree/main", server.host()));
    assert_eq!((uploaded.large_bytes, uploaded.unchanged.len()), (10, 0));
    let files = server.files("me/tiny", "main");
    for name in names() {
        assert_eq!(
            files[&name],
            std::fs::read(folder.path().join(&name)).unwrap(),
            "{name}"
        );
    }
    let state = server.state.lock().unwrap();
    assert_eq!(state.repositories["me/tiny"].messages, ["Upload"]);
    assert!(!state.repositories["me/tiny"].private);
    // The token is for the hub, and not for where it lets large files go.
    for (method, path, token) in &state.requests {
        assert_eq!(token.is_some(), !path.starts_with("/storage/"), "{method} {path}");
    }
}

#[test]
fn what_is_there_is_not_sent_again() {
    let (server, folder) = (UploadServer::start(), folder());
    send(folder.path(), &options(&server)).unwrap();
    server.take_requests();
    let again = send(folder.path(), &options(&server)).unwrap();
    assert_eq!((again.unchanged, again.commit), (names(), None));
    let sent = server.take_requests();
    assert!(
        !sent.iter().any(|line| ["PUT", "/commit", "/preupload", "lfs"]
            .iter()
            .any(|word| line.contains(word))),
        "{sent:?}"
    );
    // One file has changed.
    std::fs::write(folder.path().join("README.md"), "# Tiny, better").unwrap();
    let again = send(folder.path(), &options(&server)).unwrap();
    assert_eq!(again.committed, ["README.md"]);
    assert_eq!(server.files("me/tiny", "main")["README.md"], b"# Tiny, better");
    assert!(!server.take_requests().iter().any(|line| line.starts_with("PUT")));
}

/// An upload that fails behind the large files goes on there.
#[test]
fn what_a_failed_run_has_stored_is_not_sent_again() {
    let (server, folder) = (UploadServer::start(), folder());
    server.state.lock().unwrap().faults.push(("/commit/", 503, "", 3));
    let failed = problem(send(folder.path(), &options(&server)));
    assert!(
        failed.contains("status 503") && failed.contains("not sent again"),
        "{failed}"
    );
    server.take_requests();
    let uploaded = send(folder.path(), &options(&server)).unwrap();
    assert_eq!((uploaded.committed.len(), uploaded.large_bytes), (4, 0));
    assert!(!server.take_requests().iter().any(|line| line.starts_with("PUT")));
}

#[test]
fn large_files_go_in_the_parts_that_the_hub_asks_for() {
    let (server, folder) = (UploadServer::start(), folder());
    {
        let mut state = server.state.lock().unwrap();
        state.chunk = Some(4);
        // A part that fails is sent again, alone.
        state.faults.push(("/2", 500, "", 1));
    }
    let uploaded = send(folder.path(), &options(&server)).unwrap();
    assert_eq!(uploaded.large_bytes, 10);
    assert_eq!(server.files("me/tiny", "main")["model.safetensors"], WEIGHTS);
    let requests = server.take_requests();
    let oid = sha256(WEIGHTS);
    let of = |start: &str| requests.iter().filter(|line| line.starts_with(start)).count();
    assert_eq!(of(&format!("PUT /storage/{oid}/")), 4);
    assert_eq!((of("POST /complete/"), of("POST /verify/")), (1, 1));
}

#[test]
fn a_branch_is_made_where_there_is_none() {
    let (server, folder) = (UploadServer::start(), folder());
    for _ in 0..2 {
        let branch = Upload {
            revision: "half",
            ..to("me/tiny")
        };
        upload(folder.path(), &names(), &branch, &options(&server)).unwrap();
    }
    assert_eq!(server.files("me/tiny", "half").len(), 5);
    assert_eq!(server.files("me/tiny", "main").len(), 1);
}

#[test]
fn what_is_to_be_private_is_never_shown() {
    let (server, folder) = (UploadServer::start(), folder());
    let private = Upload {
        private: true,
        ..to("me/tiny")
    };
    upload(folder.path(), &names(), &private, &options(&server)).unwrap();
    assert!(server.state.lock().unwrap().repositories["me/tiny"].private);
    server
        .state
        .lock()
        .unwrap()
        .repositories
        .get_mut("me/tiny")
        .unwrap()
        .private = false;
    server.take_requests();
    let refused = problem(upload(folder.path(), &names(), &private, &options(&server)));
    assert!(refused.contains("everybody can see it"), "{refused}");
    assert!(!server.take_requests().iter().any(|line| line.contains("/commit/")));
}

#[test]
fn files_that_the_repository_ignores_are_told() {
    let (server, folder) = (UploadServer::start(), folder());
    std::fs::write(folder.path().join("run.log"), "x").unwrap();
    let names = ["README.md".to_owned(), "run.log".to_owned()];
    let uploaded = upload(folder.path(), &names, &to("me/tiny"), &options(&server)).unwrap();
    assert_eq!(
        (uploaded.committed, uploaded.ignored),
        (vec!["README.md".to_owned()], vec!["run.log".to_owned()])
    );
}

#[test]
fn refusals_say_what_to_do() {
    let (server, folder) = (UploadServer::start(), folder());
    let path = folder.path();
    for (status, body, words) in [
        (401, "", "does not know the token"),
        (403, "", "needs write access"),
        (404, "", "check the id"),
        (400, r#"{"error": "invalid license\u001b[2J"}"#, "invalid license[2J"),
        (307, "", "redirects what is sent"),
    ] {
        server.state.lock().unwrap().faults = vec![("/repos/create", status, body, 1)];
        let problem = problem(send(path, &options(&server)));
        assert!(problem.contains(words) && problem.contains("me/tiny"), "{problem}");
        assert!(
            !problem.contains('\u{1b}') && !problem.contains("hf_secret"),
            "{problem}"
        );
    }
    server.state.lock().unwrap().faults.clear();
    server.take_requests();
    let without = |change: &dyn Fn(&mut HubOptions)| {
        let mut options = options(&server);
        change(&mut options);
        problem(send(path, &options))
    };
    assert!(without(&|options| options.token = None).contains("HF_TOKEN"));
    assert!(without(&|options| options.offline = true).contains("switched off"));
    for repo in ["tiny", "a/b/c", "../x", "me/ti ny"] {
        let refused = problem(upload(path, &names(), &to(repo), &options(&server)));
        assert!(refused.contains("owner/name"), "{refused}");
    }
    let missing = problem(upload(path, &["gone".into()], &to("me/tiny"), &options(&server)));
    assert!(missing.contains("gone"), "{missing}");
    assert_eq!(server.take_requests(), [""; 0]);
}

/// Answers that are no hub's are refused, and no address is less safe than the hub's own.
#[test]
fn hostile_answers_are_refused() {
    let (server, folder) = (UploadServer::start(), folder());
    let objects = |actions: &str| {
        format!(
            r#"{{"objects": [{{"oid": "{}", "size": 10, {actions}}}]}}"#,
            sha256(WEIGHTS)
        )
    };
    let cases = [
        ("/preupload/", "[]".to_owned(), "does not answer as a hub does"),
        (
            "/preupload/",
            r#"{"files": []}"#.into(),
            "does not say how README.md is stored",
        ),
        ("/batch", r#"{"objects": []}"#.into(), "about other files"),
        (
            "/batch",
            r#"{"objects": [{"oid": "x", "size": 1}]}"#.into(),
            "about another file",
        ),
        (
            "/batch",
            objects(r#""error": {"code": 422, "message": "no room"}"#),
            "no room",
        ),
        (
            "/batch",
            objects(r#""actions": {"upload": {"href": "file:///etc/x"}}"#),
            "names the address",
        ),
        (
            "/batch",
            objects(r#""actions": {"upload": {"href": "/x", "header": {"chunk_size": "1", "1": "/y"}}}"#),
            "do not make it",
        ),
    ];
    for (path, body, words) in cases {
        let body: &'static str = body.leak();
        server.state.lock().unwrap().faults = vec![(path, 200, body, 1)];
        let problem = problem(send(folder.path(), &options(&server)));
        assert!(problem.contains(words), "{problem}");
    }
    assert_eq!(server.files("me/tiny", "main").len(), 1);
}
