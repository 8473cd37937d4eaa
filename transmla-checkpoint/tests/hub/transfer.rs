//! Bodies that are damaged, short, long, late or refused: nothing bad is ever taken, and what can be mended is.

use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use transmla_checkpoint::hub::{HubEvent, HubObserver, HubOptions, model_folder};

use crate::server::{Fault, Server, commit, hash};

const ID: &str = "org/name";

/// A hub with one small and one large file.
struct Place {
    server: Server,
    cache: tempfile::TempDir,
    options: HubOptions,
}

const FOR_EVER: usize = usize::MAX;

/// Both kinds of files: hashed by git's rules, and by SHA-256.
const FILES: [&str; 2] = ["config.json", "model.safetensors"];

fn contents(name: &str) -> Vec<u8> {
    (0..300_000u32).map(|i| (i * 7 + name.len() as u32) as u8).collect()
}

impl Place {
    fn new() -> Self {
        let server = Server::start();
        let files = FILES.map(|name| (name, contents(name)));
        let files = files.each_ref().map(|(name, contents)| (*name, contents.as_slice()));
        server.put("models/org/name", &commit(1), &files);
        let cache = tempfile::tempdir().unwrap();
        let options = server.options(cache.path());
        Self { server, cache, options }
    }

    /// From which bytes files were asked for since the last look, where it was not the first.
    fn continued_from(&self) -> Vec<usize> {
        let requests = self.server.take_requests();
        requests.into_iter().filter_map(|asked| asked.from).collect()
    }

    fn error(&self) -> String {
        model_folder(ID, "main", &self.options).unwrap_err().to_string()
    }

    /// Fetches everything and checks it to the byte.
    #[track_caller]
    fn fetch(&self) {
        let folder = model_folder(ID, "main", &self.options).unwrap();
        for name in FILES {
            assert!(fs::read(folder.join(name)).unwrap() == contents(name), "{name}");
        }
        assert!(self.parts().is_empty(), "{:?}", self.parts());
    }

    fn blobs(&self) -> PathBuf {
        self.cache.path().join("models--org--name/blobs")
    }

    fn part(&self, name: &str) -> PathBuf {
        self.blobs().join(format!("{}.incomplete", hash(name, &contents(name))))
    }

    /// What has come of files so far.
    fn parts(&self) -> Vec<String> {
        let entries = fs::read_dir(self.blobs()).into_iter().flatten();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".incomplete")).collect()
    }

    /// Nothing that is not verified has a place in the cache.
    fn holds_nothing_of(&self, name: &str) {
        assert!(!self.blobs().join(hash(name, &contents(name))).exists());
        let snapshot = self.cache.path().join("models--org--name/snapshots").join(commit(1));
        assert!(!snapshot.join(name).exists());
    }
}

#[test]
fn a_flipped_bit_is_noticed_and_mended_once() {
    for name in FILES {
        let place = Place::new();
        place.server.fault(name, Fault::Flipped, FOR_EVER);
        let error = place.error();
        for words in [name, "does not have the announced hash", "twice"] {
            assert!(error.contains(words), "{error}");
        }
        place.holds_nothing_of(name);
        assert!(place.parts().is_empty());
        place.server.heal();
        place.server.fault(name, Fault::Flipped, 1);
        place.fetch();
    }
}

#[test]
fn a_body_cut_short_is_continued() {
    for (name, fault) in FILES.into_iter().flat_map(|name| {
        [Fault::Short(1000), Fault::ShortWithoutLength(100_000), Fault::Short(0)].map(|fault| (name, fault))
    }) {
        let place = Place::new();
        place.server.fault(name, fault.clone(), 2);
        place.fetch();
        let from = place.continued_from();
        assert_eq!(from.is_empty(), matches!(fault, Fault::Short(0)), "{from:?}");
        // For ever is too long, and what has come is kept for the next run.
        let place = Place::new();
        place.server.fault(name, Fault::Short(0), FOR_EVER);
        assert!(place.error().contains("broke off after 0 of 300000 bytes"));
        place.server.heal();
        place.server.fault(name, Fault::Short(5000), 3);
        place.fetch();
    }
}

#[test]
fn a_body_cut_short_of_unknown_length_is_not_taken_for_whole() {
    for name in FILES {
        let place = Place::new();
        place.server.state.lock().unwrap().names_only = true;
        place.server.fault(name, Fault::ShortWithoutLength(100_000), FOR_EVER);
        place.server.fault(name, Fault::IgnoresRange, FOR_EVER);
        // The last fault answers in full; the first cuts that.
        place.server.state.lock().unwrap().faults.reverse();
        let error = place.error();
        assert!(error.contains(name), "{error}");
        place.holds_nothing_of(name);
        place.server.heal();
        place.fetch();
    }
}

#[test]
fn a_part_of_an_earlier_run_is_continued_and_verified() {
    for name in FILES {
        let place = Place::new();
        place.server.fault(name, Fault::Short(123_456), FOR_EVER);
        place.server.fault(name, Fault::IgnoresRange, FOR_EVER);
        place.server.state.lock().unwrap().faults.reverse();
        assert!(place.error().contains("broke off after 123456 of 300000"));
        assert_eq!(fs::metadata(place.part(name)).unwrap().len(), 123_456);
        place.server.heal();
        place.server.take_requests();
        place.fetch();
        let from = place.continued_from();
        assert!(from.contains(&123_456), "{from:?}");
    }
}

#[test]
fn a_bad_part_is_thrown_away() {
    let whole = contents("config.json");
    let longer = [whole.clone(), vec![1]].concat();
    let damaged: Vec<u8> = whole.iter().map(|byte| byte ^ 1).collect();
    for (what, part) in [
        ("complete", whole.as_slice()),
        ("complete and damaged", &damaged),
        ("damaged", &damaged[..1000]),
        ("too long", &longer),
        ("empty", &[]),
    ] {
        let place = Place::new();
        fs::create_dir_all(place.blobs()).unwrap();
        fs::write(place.part("config.json"), part).unwrap();
        place.fetch();
        let downloads = place.server.take_downloads();
        assert_eq!(
            downloads.contains(&"config.json".to_owned()),
            what != "complete",
            "{what}"
        );
    }
}

#[test]
fn a_server_that_refuses_or_mistakes_ranges() {
    for fault in [Fault::NothingBehind, Fault::IgnoresRange, Fault::OtherRange] {
        for name in FILES {
            let place = Place::new();
            fs::create_dir_all(place.blobs()).unwrap();
            fs::write(place.part(name), &contents(name)[..1000]).unwrap();
            place.server.fault(name, fault.clone(), FOR_EVER);
            place.fetch();
        }
    }
    // 416 whatever is asked for.
    let place = Place::new();
    fs::create_dir_all(place.blobs()).unwrap();
    fs::write(place.part("config.json"), "x").unwrap();
    place.server.fault("config.json", Fault::BodyStatus(416), FOR_EVER);
    assert!(place.error().contains("416"));
    assert!(place.server.take_requests().len() < 10);
    place.server.heal();
    place.fetch();
}

#[test]
fn a_server_that_can_list_names_alone() {
    let place = Place::new();
    place.server.state.lock().unwrap().names_alone_in_time = true;
    place.fetch();
    // What the headers say is enough to notice what is wrong.
    let place = Place::new();
    place.server.state.lock().unwrap().names_alone_in_time = true;
    place.server.fault("config.json", Fault::Flipped, FOR_EVER);
    assert!(place.error().contains("does not have the announced hash"));
}

#[test]
fn a_part_of_unknown_size_that_is_complete() {
    let place = Place::new();
    place.server.state.lock().unwrap().names_only = true;
    fs::create_dir_all(place.blobs()).unwrap();
    // Its size is not known before the server says that there is nothing behind it.
    fs::write(place.part("config.json"), contents("config.json")).unwrap();
    place.fetch();
}

#[test]
fn a_body_that_is_too_long_is_stopped() {
    for name in FILES {
        let place = Place::new();
        place.server.fault(name, Fault::TooLong, FOR_EVER);
        let error = place.error();
        assert!(
            error.contains(name) && error.contains("more than the announced 300000 bytes"),
            "{error}"
        );
        place.holds_nothing_of(name);
        place.server.heal();
        place.server.fault(name, Fault::TooLong, 1);
        place.fetch();
    }
}

#[test]
fn nothing_is_waited_for_for_ever() {
    for fault in [Fault::Stalls(0), Fault::Stalls(70_000), Fault::Drips] {
        let mut place = Place::new();
        place.options.timeouts.retries = 1;
        place.options.timeouts.stall = Duration::from_millis(200);
        place.server.fault("model.safetensors", fault.clone(), FOR_EVER);
        let started = Instant::now();
        let error = place.error();
        assert!(
            error.contains("model.safetensors") && error.contains("broke off"),
            "{fault:?}: {error}"
        );
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{fault:?}: {:?}",
            started.elapsed()
        );
        place.server.heal();
        place.fetch();
    }
}

/// A server that says the same for as long as somebody listens, a piece at a time.
fn endless(piece: &'static [u8], pause: Duration) -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok(mut connection) = connection else { break };
            std::thread::spawn(move || {
                let started = connection.write_all(b"HTTP/1.1 200 OK\r\n");
                let mut listens = started.is_ok();
                while listens {
                    std::thread::sleep(pause);
                    listens = connection.write_all(piece).is_ok();
                }
            });
        }
    });
    address
}

#[test]
fn headers_that_never_end_or_never_come() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    for endpoint in [
        format!("http://{}", silent.local_addr().unwrap()),
        endless(b"X-Header: more\r\n", Duration::from_millis(20)),
        endless(&[b'x'; 1000], Duration::ZERO),
        endless(b"", Duration::from_millis(20)),
    ] {
        let mut place = Place::new();
        place.options.endpoint = Some(endpoint.clone());
        place.options.timeouts.answer = Duration::from_millis(200);
        let started = Instant::now();
        let error = place.error();
        assert!(error.contains("org/name") && error.contains("network"), "{error}");
        assert!(
            started.elapsed() < Duration::from_secs(4),
            "{endpoint}: {:?}",
            started.elapsed()
        );
    }
}

#[test]
fn what_may_pass_is_tried_again_and_no_more_than_that() {
    for status in [408, 429, 500, 503] {
        let place = Place::new();
        place.server.fault("config.json", Fault::BodyStatus(status), 2);
        place.fetch();
        let place = Place::new();
        place.server.fault("config.json", Fault::Status(status), FOR_EVER);
        assert!(place.error().contains(&status.to_string()));
        let asked = place.server.take_requests().len();
        assert!(asked <= 5, "{asked} requests");
    }
    let place = Place::new();
    place.server.fault("config.json", Fault::Status(400), FOR_EVER);
    assert!(place.error().contains("400"));
    assert_eq!(place.server.take_requests().len(), 2, "the listing and one question");
}

#[test]
fn a_damaged_file_of_another_program_is_not_used() {
    // Cut short, as some clients leave it under its final name.
    let place = Place::new();
    place.fetch();
    for name in FILES {
        let blob = place.blobs().join(hash(name, &contents(name)));
        fs::OpenOptions::new()
            .write(true)
            .open(&blob)
            .unwrap()
            .set_len(1000)
            .unwrap();
    }
    place.fetch();
    // A wrong bit, in a blob that a second commit shares with the first.
    let blob = place.blobs().join(hash(FILES[1], &contents(FILES[1])));
    let mut bytes = fs::read(&blob).unwrap();
    bytes[7] ^= 1;
    fs::write(&blob, bytes).unwrap();
    let files = FILES.map(|name| (name, contents(name)));
    let files = files.each_ref().map(|(name, contents)| (*name, contents.as_slice()));
    place.server.put("models/org/name", &commit(2), &files);
    place.server.take_requests();
    place.fetch();
    assert_eq!(place.server.take_downloads(), ["model.safetensors"]);
}

/// Counts how often somebody else is waited for.
#[derive(Default)]
struct Waits(std::sync::atomic::AtomicUsize);

impl HubObserver for Waits {
    fn event(&self, event: &HubEvent<'_>) {
        if matches!(event, HubEvent::Waiting { .. }) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }
}

#[test]
fn two_at_once_fetch_once() {
    let place = Place::new();
    // Slow enough for the second to come while the first is at it.
    place.server.fault("model.safetensors", Fault::Stalls(200_000), 1);
    let waits = std::sync::Arc::new(Waits::default());
    let options = HubOptions {
        observer: Some(waits.clone()),
        ..place.options.clone()
    };
    std::thread::scope(|scope| {
        let fetch = || model_folder(ID, "main", &options).unwrap();
        let all: Vec<_> = (0..4).map(|_| scope.spawn(fetch)).collect();
        let folders: Vec<PathBuf> = all.into_iter().map(|one| one.join().unwrap()).collect();
        assert!(folders.iter().all(|folder| *folder == folders[0]));
    });
    place.fetch();
    assert!(waits.0.load(std::sync::atomic::Ordering::Relaxed) > 0);
    let requests = place.server.take_requests();
    let bodies = |from: bool| {
        let of_weights = |asked: &&crate::server::Asked| asked.host == "cdn" && asked.method == "GET";
        requests
            .iter()
            .filter(of_weights)
            .filter(|asked| asked.from.is_some() == from)
            .count()
    };
    assert_eq!(
        (bodies(false), bodies(true)),
        (1, 1),
        "one download, continued once: {requests:?}"
    );
}

const CHILD: &str = "TRANSMLA_TEST_HUB";

/// Not a test of its own: a process that fetches the model.
#[test]
#[ignore = "started by the test below"]
fn child_that_fetches() {
    let Ok(told) = std::env::var(CHILD) else { return };
    let (endpoint, cache) = told.split_once(' ').unwrap();
    let options = HubOptions {
        endpoint: Some(endpoint.to_owned()),
        cache: Some(cache.into()),
        ..HubOptions::default()
    };
    model_folder(ID, "main", &options).unwrap();
}

#[test]
fn two_processes_at_once_fetch_once() {
    let place = Place::new();
    place.server.fault("model.safetensors", Fault::Slow(100), FOR_EVER);
    let endpoint = place.options.endpoint.clone().unwrap();
    let children: Vec<_> = (0..2)
        .map(|_| {
            std::process::Command::new(std::env::current_exe().unwrap())
                .args(["--exact", "transfer::child_that_fetches", "--ignored"])
                .env(CHILD, format!("{endpoint} {}", place.cache.path().display()))
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap()
        })
        .collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let requests = place.server.take_requests();
    let bodies = |name: &str| {
        let of_file = |asked: &&crate::server::Asked| asked.method == "GET" && asked.path.ends_with(name);
        requests
            .iter()
            .filter(of_file)
            .filter(|asked| asked.host == "cdn" || name == FILES[0])
            .count()
    };
    assert_eq!(FILES.map(bodies), [1, 1], "{requests:?}");
    place.fetch();
}
