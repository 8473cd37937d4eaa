//! Models by folder, hub id or name.

use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;
use transmla_convert::residency;
use transmla_core::checkpoint::read_regular_text;
use transmla_core::hub::{is_path, model_folder};
use transmla_core::{Checkpoint, Decoder, ModelConfig, Residency};

use crate::options::compute::ComputeArguments;
use crate::options::device::DeviceArguments;
use crate::options::model::ModelArguments;
use crate::printer::Printer;
use crate::{embedded, environment, interrupt};

/// The folder of a model, unpacked or fetched if need be.
#[derive(Debug)]
pub struct ModelFolder {
    path: PathBuf,
    /// Kept for as long as the folder is used, if it is temporary.
    _unpacked: Option<TempDir>,
}

impl ModelFolder {
    /// Finds a model.
    pub fn locate(model: &str, revision: &str, printer: &Printer) -> anyhow::Result<Self> {
        if model == embedded::MODEL {
            let unpacked = embedded::unpack_model()?;
            return Ok(Self {
                path: unpacked.path().to_path_buf(),
                _unpacked: Some(unpacked),
            });
        }
        let hub = environment::hub_options(printer);
        let path = model_folder(model, revision, &hub)?;
        if is_path(model) && path != Path::new(model) {
            printer.note(format!("model: {}", path.display()));
        }
        if let Some((linked, path)) = follow_stored_links(&path)? {
            return Ok(Self {
                path,
                _unpacked: Some(linked),
            });
        }
        Ok(Self { path, _unpacked: None })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its decoder, with weights in memory or not, whichever the allowed memory says.
    pub fn open(&self, compute: &ComputeArguments) -> anyhow::Result<Decoder> {
        let config = ModelConfig::read(&self.path)?;
        let residency = residency(&config, compute.max_memory());
        self.open_on(&compute.device, config, residency)
    }

    /// Its decoder.
    pub fn open_on(
        &self,
        device: &DeviceArguments,
        config: ModelConfig,
        residency: Residency,
    ) -> anyhow::Result<Decoder> {
        let device = device.open()?;
        let checkpoint = Checkpoint::open(&self.path)?;
        Ok(Decoder::new(config, checkpoint, &device, residency)?)
    }
}

/// What the files of a snapshot in a hub cache point to.
const BLOBS: &str = "../../blobs/";

/// Where such files are linked to, laid out as a repository in a cache: what leads to its blobs is of the model.
const LINKED: &str = "models--linked--snapshot";

/// A snapshot like the one whose links were stored as the text of their targets, as git and archives do where there are no
/// links, but with links; nothing for any other folder. It is gone with the temporary folder.
fn follow_stored_links(snapshot: &Path) -> anyhow::Result<Option<(TempDir, PathBuf)>> {
    if stored_link(snapshot, &snapshot.join("config.json")).is_none() {
        return Ok(None);
    }
    let folder = interrupt::temporary_folder().context("cannot create a temporary folder")?;
    let repository = folder.path().join(LINKED);
    let linked = repository.join("snapshots").join("linked");
    std::fs::create_dir_all(&linked).context("cannot create a temporary folder")?;
    #[cfg(unix)]
    link(&std::fs::canonicalize(snapshot.join(BLOBS))?, &repository.join("blobs"))?;
    for entry in std::fs::read_dir(snapshot)?.flatten() {
        let (from, to) = (entry.path(), linked.join(entry.file_name()));
        let done = match stored_link(snapshot, &from) {
            Some(blob) => link(&std::fs::canonicalize(blob)?, &to),
            None if from.is_file() => take(&from, &to),
            None => Ok(()),
        };
        done.with_context(|| format!("cannot link {}", from.display()))?;
    }
    Ok(Some((folder, linked)))
}

/// The file of the cache that a file names instead of being a link to it.
fn stored_link(snapshot: &Path, file: &Path) -> Option<PathBuf> {
    let longest = (BLOBS.len() + 128) as u64;
    let text = read_regular_text(file, longest).ok()?;
    // A blob goes by its hash: nothing leads out of the cache.
    let blob = text.trim_end().strip_prefix(BLOBS)?;
    let is_hash = !blob.is_empty() && blob.bytes().all(|byte| byte.is_ascii_hexdigit());
    let target = snapshot.join(BLOBS).join(blob);
    (is_hash && target.is_file()).then_some(target)
}

#[cfg(unix)]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(from, to)
}

#[cfg(not(unix))]
fn link(from: &Path, to: &Path) -> std::io::Result<()> {
    take(from, to)
}

fn take(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::hard_link(from, to).or_else(|_| std::fs::copy(from, to).map(|_| ()))
}

/// Bytes of a number in the dtype that config.json names.
pub fn declared_bytes(config: &ModelConfig) -> u64 {
    let name = ["/torch_dtype", "/dtype"]
        .into_iter()
        .find(|key| config.raw.is_set(key));
    match name.and_then(|name| config.raw.text(name)) {
        Some("float32") => 4,
        _ => 2,
    }
}

impl ModelArguments {
    /// Finds the model.
    pub fn locate(&self, printer: &Printer) -> anyhow::Result<ModelFolder> {
        ModelFolder::locate(&self.model_path, &self.revision, printer)
    }
}
