//! Whether there is room on the disk for what a conversion writes.

use std::fs;
use std::path::Path;

use transmla_core::checkpoint::Place;

use crate::solve::memory::elements;
use crate::solve::statistics_bytes;
use crate::spec::error::ConvertError;
use crate::spec::options::FileFormat;
use crate::spec::plan::Plan;

/// Bytes on disk while a model is made, at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskNeeds {
    /// Its weights, once more for GGUF.
    pub model: u64,
    /// Solved layers, beside it until it stands.
    pub layers: u64,
    /// Statistics of the original, beside it until it stands; models of one original that have the same text share them.
    pub statistics: u64,
}

impl DiskNeeds {
    /// Of a plan, for `samples` calibration sequences of `tokens` tokens.
    pub fn of(plan: &Plan, samples: usize, tokens: usize) -> Self {
        let copies = match plan.recipe().file_format() {
            FileFormat::Safetensors => 1,
            FileFormat::Gguf => 2,
        };
        Self {
            model: plan.output_bytes().saturating_mul(copies),
            layers: 4 * elements(&plan.solved_attention(0).2) * plan.source().num_hidden_layers as u64,
            statistics: statistics_bytes(plan, samples, tokens),
        }
    }

    /// What is there no more once the model stands.
    pub fn beside(&self) -> u64 {
        self.layers.saturating_add(self.statistics)
    }
}

/// Checks that there is room for models that are made at the same time, where the system tells. What an earlier run has left
/// there to go on with counts.
///
/// # Errors
/// [`ConvertError::Space`] with what is needed and what is free.
pub fn check_space<'a>(models: impl IntoIterator<Item = (&'a Path, DiskNeeds)>) -> Result<(), ConvertError> {
    let mut needed = 0u64;
    let mut statistics = 0;
    let mut there = 0u64;
    let mut folder = None;
    for (save_path, needs) in models {
        needed = needed.saturating_add(needs.model).saturating_add(needs.layers);
        statistics = needs.statistics.max(statistics);
        there = there.saturating_add(folder_bytes(&Place::of(save_path)?.hidden("layers")));
        folder = folder.or(Some(save_path));
    }
    let needed = needed.saturating_add(statistics).saturating_sub(there);
    match folder {
        Some(folder) => check_room(folder, needed),
        None => Ok(()),
    }
}

/// Checks that there is room for so many bytes beside a folder to make.
///
/// # Errors
/// [`ConvertError::Space`].
pub(crate) fn check_room(save_path: &Path, needed: u64) -> Result<(), ConvertError> {
    let place = Place::of(save_path)?;
    match place.free_bytes() {
        Some(free) if free < needed => Err(ConvertError::Space {
            folder: place.folder().to_path_buf(),
            needed,
            free,
        }),
        _ => Ok(()),
    }
}

/// Bytes of the files in a folder and those below it; what cannot be looked at counts nothing.
fn folder_bytes(folder: &Path) -> u64 {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let bytes = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => folder_bytes(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_to_go_on_with_is_not_needed_again() {
        let folder = tempfile::tempdir().unwrap();
        let save_path = folder.path().join("model");
        let layer = folder.path().join(".model.layers/layer-00000");
        fs::create_dir_all(&layer).unwrap();
        fs::write(layer.join("file"), vec![0; 5000]).unwrap();
        let free = Place::of(&save_path).unwrap().free_bytes();
        let Some(free) = free else { return };
        let needs = |statistics| DiskNeeds {
            model: 0,
            layers: 0,
            statistics,
        };
        // Others write to the same disk.
        let margin = 1 << 40;
        assert_eq!(folder_bytes(&folder.path().join(".model.layers")), 5000);
        check_space([(save_path.as_path(), needs(5000))]).unwrap();
        let Err(ConvertError::Space { needed, .. }) = check_space([(save_path.as_path(), needs(free + margin))]) else {
            panic!("there is no such room");
        };
        assert_eq!(needed, free + margin - 5000);
        // Two models share statistics.
        let other = folder.path().join("other");
        let both = [save_path.as_path(), &other].map(|path| (path, needs(free + margin)));
        let Err(ConvertError::Space { needed, .. }) = check_space(both) else {
            panic!("there is no such room");
        };
        assert_eq!(needed, free + margin - 5000);
    }
}
