//! Programs that are started, watched and stopped.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};

/// How often a running program is looked at.
const GLANCE: Duration = Duration::from_millis(100);

/// The programs that do the work.
#[derive(Debug)]
pub struct Programs {
    pub transmla: PathBuf,
    pub gpu: PathBuf,
}

impl Programs {
    /// Those in a folder.
    ///
    /// # Errors
    /// One is missing.
    pub fn of(folder: &Path) -> anyhow::Result<Self> {
        let folder = std::path::absolute(folder)?;
        let here = |name: &str| {
            let path = folder.join(name);
            ensure!(path.is_file(), "there is no {}", path.display());
            Ok(path)
        };
        Ok(Self {
            transmla: here("transmla")?,
            gpu: here("gpu")?,
        })
    }
}

/// What a program did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What it printed.
    pub output: String,
    /// Why it did not end well: its last words, or that its time was up.
    pub failure: Option<String>,
    /// From its start to its end.
    pub seconds: f64,
    /// Most memory of the card that was taken while it ran, by all programs, in MiB.
    pub device_mebibytes: Option<u64>,
}

impl Outcome {
    /// The JSON objects among the lines of the output.
    pub fn objects(&self) -> Vec<Value> {
        let lines = self.output.lines();
        lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect()
    }
}

/// Runs a program for at most so long.
pub fn run(command: &mut Command, longest: Duration) -> Outcome {
    let started = Instant::now();
    let spawned = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match spawned {
        Ok(child) => child,
        Err(error) => {
            return Outcome {
                failure: Some(format!("cannot start {}: {error}", command.get_program().display())),
                ..Outcome::default()
            };
        }
    };
    let (output, errors) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let (done, peak) = (AtomicBool::new(false), AtomicU64::new(0));
    let status = thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                if let Some(used) = device_memory() {
                    peak.fetch_max(used, Ordering::Relaxed);
                }
                thread::sleep(2 * GLANCE);
            }
        });
        let status = wait(&mut child, longest);
        done.store(true, Ordering::Relaxed);
        status
    });
    let text = |handle: thread::JoinHandle<String>| handle.join().unwrap_or_default();
    let (output, errors) = (text(output), text(errors));
    let failure = match status {
        None => Some("its time was up".to_owned()),
        Some(true) => None,
        Some(false) => Some(last_lines(&errors)),
    };
    Outcome {
        output,
        failure,
        seconds: started.elapsed().as_secs_f64(),
        device_mebibytes: Some(peak.into_inner()).filter(|peak| *peak > 0),
    }
}

/// Whether it ended well; nothing if it had to be stopped.
fn wait(child: &mut Child, longest: Duration) -> Option<bool> {
    let end = Instant::now() + longest;
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Some(status.success()),
            Ok(None) if Instant::now() < end => thread::sleep(GLANCE),
            Ok(None) | Err(_) => {
                // It may have ended by itself.
                let _ = child.kill();
                let _ = child.wait();
                return None;
            }
        }
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error counts.
            let _ = stream.read_to_end(&mut bytes);
        }
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// The last three lines that say something.
fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(3)..].join(" / ")
}

/// MiB of the first card that are taken; nothing without NVIDIA's tool.
fn device_memory() -> Option<u64> {
    nvidia_smi("memory.used")?.trim().parse().ok()
}

/// The card and its driver, as NVIDIA's tool names them.
pub fn machine() -> Value {
    json!({
        "card": nvidia_smi("name"),
        "driver": nvidia_smi("driver_version"),
        "memory_mebibytes": nvidia_smi("memory.total").and_then(|text| text.parse::<u64>().ok()),
        "cores": thread::available_parallelism().map(usize::from).ok(),
    })
}

fn nvidia_smi(field: &str) -> Option<String> {
    let query = format!("--query-gpu={field}");
    let arguments = ["--id=0", &query, "--format=csv,noheader,nounits"];
    let output = Command::new("nvidia-smi").args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// Takes the symbols out of a program, where the tool for that is there.
pub fn strip(program: &Path) {
    let _ = Command::new("strip").arg(program).status();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn programs_are_heard_and_stopped() {
        let shell = |script: &str, seconds| run(Command::new("sh").args(["-c", script]), Duration::from_secs(seconds));
        let fine = shell("echo '{\"a\": 1}'; echo words; echo 3", 60);
        assert!(fine.failure.is_none());
        assert_eq!(fine.objects(), [json!({"a": 1})]);
        let failed = shell("echo one >&2; echo two >&2; exit 1", 60);
        assert_eq!(failed.failure.as_deref(), Some("one / two"));
        let slow = shell("exec sleep 60", 0);
        assert_eq!(slow.failure.as_deref(), Some("its time was up"));
        assert!(run(&mut Command::new("no-such-program"), GLANCE).failure.is_some());
    }

    #[test]
    fn missing_programs_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Programs::of(folder.path()).unwrap_err().to_string();
        assert!(error.contains("transmla"), "{error}");
    }
}
