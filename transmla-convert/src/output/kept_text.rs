//! Calibration text that the original wrote, kept so that it is not written again.
//!
//! A converted model has its ids in [`FILE`], which may also be given as exact token ids; until it stands they are in the
//! resume cache. Whether ids are of use is told by a SHA-256 fingerprint of what they follow from: the weights and the
//! configuration of the original, the files that say how it is talked to, seed, sizes, how tokens are drawn, the device, this
//! version. Whether they are still what was written is told by a checksum.

use std::fs;
use std::path::Path;

use sha2::{Digest, Sha256};
use transmla_calib::SampleSpec;
use transmla_core::checkpoint::{Place, input_ids_file, input_ids_label, model_file, read_input_ids, replace_file};
use transmla_core::{CoreError, Decoder, LayeredModel, TokenBatch};

use crate::spec::error::ConvertError;
use crate::text::written::SAMPLING;

/// The file in the folder of a converted model. It lies in a folder of its own, for engines take every safetensors file
/// beside the weights for weights.
pub(crate) const FILE: &str = "calibration/self.safetensors";

/// Its name in the resume cache.
const HIDDEN_FILE: &str = "self.safetensors";

/// Changes when the same model and seed come to write something else.
const REVISION: &str = "1";

/// Files of the original that decide what it is asked and where it stops.
const FILES: [&str; 5] = [
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Most bytes of each.
const LARGEST: u64 = 256 << 20;

/// Stands for all that a text follows from.
///
/// # Errors
/// The original's files cannot be read, or its weights have changed since they were opened.
pub(crate) fn fingerprint(model: &Decoder, folder: &Path, spec: &SampleSpec) -> Result<String, ConvertError> {
    let mut hasher = Sha256::new();
    let mut add = |name: &str, value: &[u8]| {
        for part in [name.as_bytes(), value] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
    };
    add("version", concat!(env!("CARGO_PKG_VERSION"), "/").as_bytes());
    add("revision", REVISION.as_bytes());
    add("weights", &model.checkpoint().fingerprint()?);
    let config = serde_json::to_vec(&model.config().raw).map_err(ConvertError::encode("config.json"))?;
    add("config.json", &config);
    for file in FILES {
        if let Some(contents) = model_file(folder, file, LARGEST)? {
            add(file, &contents);
        }
    }
    add("device", format!("{:?}", model.device()).as_bytes());
    add("settings", format!("{spec:?} {SAMPLING:?}").as_bytes());
    Ok(hex(&hasher.finalize()))
}

/// The ids with this fingerprint that a run to this place has kept, finished or not. What cannot be read is as good as
/// absent.
pub(crate) fn find(save_path: &Path, fingerprint: &str) -> Option<TokenBatch> {
    let hidden = Place::of(save_path).map(|place| place.hidden("layers").join(HIDDEN_FILE));
    hidden.into_iter().chain([save_path.join(FILE)]).find_map(|file| {
        if !file.exists() {
            return None;
        }
        let label = input_ids_label(&file).ok()??;
        let tokens = read_input_ids(&file).ok()?;
        (label == label_of(&tokens, fingerprint)).then_some(tokens)
    })
}

/// The contents of the file.
pub(crate) fn contents(tokens: &TokenBatch, fingerprint: &str) -> Result<Vec<u8>, ConvertError> {
    Ok(input_ids_file(tokens, &label_of(tokens, fingerprint))?)
}

/// Keeps the contents of the file in the resume cache of a place.
pub(crate) fn keep(save_path: &Path, contents: &[u8]) -> Result<(), ConvertError> {
    let folder = Place::of(save_path)?.hidden("layers");
    fs::create_dir_all(&folder).map_err(|error| CoreError::io("create", &folder, error))?;
    let file = folder.join(HIDDEN_FILE);
    replace_file(&file, contents).map_err(|error| CoreError::io("write", &file, error))?;
    Ok(())
}

fn label_of(tokens: &TokenBatch, fingerprint: &str) -> String {
    let mut hasher = Sha256::new();
    hasher.update((tokens.sequence() as u64).to_le_bytes());
    for id in tokens.ids() {
        hasher.update(id.to_le_bytes());
    }
    format!("{fingerprint} {}", hex(&hasher.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
