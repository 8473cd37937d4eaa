//! The datasets known by name.

use std::path::PathBuf;

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use transmla_checkpoint::CheckpointError;
use transmla_checkpoint::hub::{HubOptions, dataset_folder};

use crate::error::CalibError;
use crate::text::datasets::split::Split;
use crate::text::datasets::text_rows::{ReadOptions, TextRows, from_files, from_folder};

/// Seed of the shuffle that splits datasets without splits of their own. Changing it changes the results reported on them.
const SHUFFLE_SEED: u64 = 42;

pub(crate) fn wikitext2(split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    let repo = HubSet {
        id: "Salesforce/wikitext",
        former: Some("wikitext"),
        revision: "main",
        folder: "wikitext-2-raw-v1",
    };
    from_folder(&repo.fetch_split(split, hub)?, split, &ReadOptions::default())
}

pub(crate) fn ptb(split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    // The main revision holds a script only; the hub keeps its output under this one.
    let repo = HubSet {
        id: "ptb-text-only/ptb_text_only",
        former: Some("ptb_text_only"),
        revision: "refs/convert/parquet",
        folder: "penn_treebank",
    };
    from_folder(&repo.fetch_split(split, hub)?, split, &ReadOptions::default())
}

pub(crate) fn c4(split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    let repo = HubSet {
        id: "allenai/c4",
        former: None,
        revision: "main",
        folder: "en",
    };
    let (name, used) = match split {
        Split::Train => ("c4-train.00000-of-01024.json.gz", Split::Train),
        Split::Validation | Split::Test => ("c4-validation.00000-of-00008.json.gz", Split::Validation),
    };
    let wanted = format!("en/{name}");
    let folder = repo.fetch(hub, &|file| file == wanted)?;
    let path = folder.join(name);
    if !path.is_file() {
        return Err(CheckpointError::MissingFile {
            path,
            hint: "the cache holds no such file; fetch it once with the hub switched on".into(),
        }
        .into());
    }
    let note = match split {
        Split::Test => "validation split (c4 has no test split)".into(),
        _ => format!("{used} split"),
    };
    from_files(&[path], Some(used), &note, &ReadOptions::default())
}

pub(crate) fn alpaca(split: Split, hub: &HubOptions) -> Result<TextRows, CalibError> {
    let repo = HubSet {
        id: "tatsu-lab/alpaca",
        former: None,
        revision: "main",
        folder: "",
    };
    let mut text = from_folder(
        &repo.fetch_split(Split::Train, hub)?,
        Split::Train,
        &ReadOptions::default(),
    )?;
    text.rows = cut_80_10_10(text.rows, split);
    text.origin = format!("{}, {split} part of a shuffle cut 80/10/10", text.origin);
    text.split = Some(split);
    Ok(text)
}

fn cut_80_10_10(mut rows: Vec<String>, split: Split) -> Vec<String> {
    rows.shuffle(&mut StdRng::seed_from_u64(SHUFFLE_SEED));
    let (train, tenth) = (rows.len() * 8 / 10, rows.len() / 10);
    let range = match split {
        Split::Train => 0..train,
        Split::Validation => train..train + tenth,
        Split::Test => train + tenth..rows.len(),
    };
    rows.drain(range).collect()
}

/// A dataset repository on the hub.
struct HubSet {
    id: &'static str,
    /// A former id, under which a cache may still hold it.
    former: Option<&'static str>,
    revision: &'static str,
    /// The folder in the repository.
    folder: &'static str,
}

impl HubSet {
    fn fetch_split(&self, split: Split, hub: &HubOptions) -> Result<PathBuf, CalibError> {
        self.fetch(hub, &|file| {
            file.starts_with(self.folder) && file.ends_with(".parquet") && split.owns(file)
        })
    }

    fn fetch(&self, hub: &HubOptions, wanted: &dyn Fn(&str) -> bool) -> Result<PathBuf, CalibError> {
        let root = dataset_folder(self.id, self.revision, hub, wanted).or_else(|error| {
            let cached = HubOptions {
                offline: true,
                ..hub.clone()
            };
            let former = self.former.map(|id| dataset_folder(id, self.revision, &cached, wanted));
            former.and_then(Result::ok).ok_or(error)
        })?;
        let folder = root.join(self.folder);
        Ok(if folder.is_dir() { folder } else { root })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cut_is_fixed_and_loses_nothing() {
        let rows: Vec<String> = (0..52).map(|i| i.to_string()).collect();
        let part = |split| cut_80_10_10(rows.clone(), split);
        let (train, validation, test) = (part(Split::Train), part(Split::Validation), part(Split::Test));
        assert_eq!((train.len(), validation.len(), test.len()), (41, 5, 6));
        assert_eq!(part(Split::Train), train);
        let mut all = [train, validation, test].concat();
        assert_ne!(all, rows);
        all.sort_by_key(|row| row.parse::<usize>().unwrap());
        assert_eq!(all, rows);
    }
}
