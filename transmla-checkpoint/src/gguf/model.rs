//! A model in one or several GGUF files: its keys, and its tensors by Hugging Face's names.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::Path;

use super::architecture::{self, Architecture};
use super::files;
use super::header::{Description, Header};
use super::names::{Role, Rows, role};
use crate::checkpoint::shard::Shard;
use crate::checkpoint::stored::{Arrangement, Stored};
use crate::error::CheckpointError;

/// The tensor of the token embeddings.
const EMBEDDING: &str = "token_embd.weight";

/// The tensor with factors of the rotary frequencies.
const ROTARY_FACTORS: &str = "rope_freqs.weight";

/// Most experts of a layer, and most numbers of factors.
const MOST_EXPERTS: usize = 4096;
const MOST_FACTORS: usize = 1 << 16;

/// An opened model.
#[derive(Debug)]
pub(super) struct Model {
    pub architecture: &'static Architecture,
    headers: Vec<Header>,
}

impl Model {
    /// Opens all files of a model by the first.
    ///
    /// # Errors
    /// A file is missing or damaged, or the architecture is not read.
    pub fn open(first: &Path) -> Result<Self, CheckpointError> {
        let header = Header::open(first)?;
        let paths = files::parts(first, header.integer("split.count"))?;
        let architecture = architecture_of(&header)?;
        let mut headers = vec![header];
        for path in &paths[1..] {
            headers.push(Header::open(path)?);
        }
        let model = Self { architecture, headers };
        for (number, header) in model.headers.iter().enumerate() {
            if header.integer("split.no").is_some_and(|no| no != number as u64) {
                return Err(header.invalid("it is another part than its name says"));
            }
        }
        let found: usize = model.headers.iter().map(|header| header.tensors.len()).sum();
        match model.main().integer("split.tensors.count") {
            Some(announced) if announced != found as u64 => Err(model.main().invalid(format!(
                "the files of this model have {found} tensors, {announced} are announced"
            ))),
            _ => Ok(model),
        }
    }

    /// The header with the keys of the model.
    pub fn main(&self) -> &Header {
        &self.headers[0]
    }

    /// The name of a key of the architecture.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture.name)
    }

    /// A key of the architecture that is an integer, or an array with the same one for all layers.
    ///
    /// # Errors
    /// It is something else, or the layers differ.
    pub fn size(&self, name: &str) -> Result<Option<u64>, CheckpointError> {
        let (key, header) = (self.key(name), self.main());
        if header.get(&key).is_none() {
            return Ok(None);
        }
        if let Some(size) = header.integer(&key) {
            return Ok(Some(size));
        }
        let layers = header.numbers(&key)?.unwrap_or_default();
        match layers.first() {
            Some(first) if layers.iter().all(|size| size == first) && *first >= 0.0 => Ok(Some(*first as u64)),
            Some(_) => Err(header.invalid(format!(
                "{key} differs from layer to layer, which no supported family has"
            ))),
            None => Err(header.invalid(format!("{key} is no integer"))),
        }
    }

    /// As [`Self::size`], of a key that must be there.
    pub fn required(&self, name: &str) -> Result<u64, CheckpointError> {
        let missing = || self.main().invalid(format!("the key {} is missing", self.key(name)));
        self.size(name)?.ok_or_else(missing)
    }

    /// Whether the files have a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    fn find(&self, name: &str) -> Option<(usize, &Description)> {
        self.all().find(|(_, tensor)| tensor.name == name)
    }

    fn all(&self) -> impl Iterator<Item = (usize, &Description)> {
        self.headers
            .iter()
            .enumerate()
            .flat_map(|(number, header)| header.tensors.iter().map(move |tensor| (number, tensor)))
    }

    /// Which layers have experts: those with a router.
    pub fn layers_with_experts(&self) -> BTreeSet<u64> {
        let router = |name: &str| {
            name.strip_prefix("blk.")?
                .strip_suffix(".ffn_gate_inp.weight")?
                .parse()
                .ok()
        };
        self.all().filter_map(|(_, tensor)| router(&tensor.name)).collect()
    }

    /// Rows of the embeddings.
    ///
    /// # Errors
    /// There are none.
    pub fn vocabulary(&self) -> Result<usize, CheckpointError> {
        match self.find(EMBEDDING).map(|(_, tensor)| &tensor.shape[..]) {
            Some([rows, _]) => Ok(*rows),
            _ => Err(self
                .main()
                .invalid(format!("it has no matrix {EMBEDDING}: it is no language model"))),
        }
    }

    /// Factors that rotary frequencies are divided by, if the files have some.
    ///
    /// # Errors
    /// They cannot be read.
    pub fn rotary_factors(&self) -> Result<Option<Vec<f32>>, CheckpointError> {
        let Some((number, tensor)) = self.find(ROTARY_FACTORS) else {
            return Ok(None);
        };
        let stored = plain(number, tensor, tensor.shape.clone(), tensor.bytes.clone());
        if stored.elements() > MOST_FACTORS {
            return Err(self
                .main()
                .invalid(format!("{ROTARY_FACTORS} has {} factors", stored.elements())));
        }
        let mut factors = Vec::new();
        // The file of the tensor alone: its number does not matter.
        let shards = std::slice::from_ref(&self.headers[number].shard);
        let of_file = Stored { shard: 0, ..stored };
        of_file.decode(ROTARY_FACTORS, shards, 0..of_file.elements(), &mut factors)?;
        Ok(Some(factors))
    }

    /// The tensors by Hugging Face's names.
    ///
    /// # Errors
    /// A tensor is there twice, is not known, or has rows that are no heads.
    pub fn tensors(&self) -> Result<BTreeMap<String, Stored>, CheckpointError> {
        let heads = self.required("attention.head_count")? as usize;
        let key_heads = self
            .size("attention.head_count_kv")?
            .map_or(heads, |heads| heads as usize);
        let mut tensors = BTreeMap::new();
        let mut add = |header: &Header, name: String, stored: Stored| match tensors.insert(name.clone(), stored) {
            Some(_) => Err(header.invalid(format!("the tensor {name} of Hugging Face is there twice"))),
            None => Ok(()),
        };
        for (number, tensor) in self.all() {
            let header = &self.headers[number];
            match role(self.architecture, &tensor.name) {
                Role::RotaryFactors => {}
                Role::Unknown => {
                    return Err(header.invalid(format!(
                        "the architecture {} has no tensor {} that is known here; take the safetensors that the file was made \
                         from",
                        self.architecture.name, tensor.name
                    )));
                }
                Role::Tensor(name) => {
                    let shape = match (name.rows, &tensor.shape[..]) {
                        (Rows::One, [width]) => vec![1, *width],
                        (_, shape) => shape.to_vec(),
                    };
                    let mut stored = plain(number, tensor, shape, tensor.bytes.clone());
                    let of_heads = |heads: usize| match heads > 0 && tensor.shape[0].is_multiple_of(2 * heads) {
                        true => Ok(Arrangement::InterleavedRows { heads }),
                        false => Err(header.invalid(format!(
                            "tensor {} has {} rows, which are not those of {heads} heads",
                            tensor.name, tensor.shape[0]
                        ))),
                    };
                    stored.arrangement = match name.rows {
                        Rows::Queries if self.architecture.interleaved => of_heads(heads)?,
                        Rows::Keys if self.architecture.interleaved => of_heads(key_heads)?,
                        Rows::Norm if self.architecture.norm_one_more => Arrangement::OneMore,
                        _ => Arrangement::Plain,
                    };
                    add(header, name.published, stored)?;
                }
                Role::Experts { prefix, matrix } => {
                    let [count, shape @ ..] = &tensor.shape[..] else {
                        continue;
                    };
                    if shape.len() != 2 || *count > MOST_EXPERTS {
                        return Err(header.invalid(format!(
                            "tensor {} has the shape {:?}, not [experts, rows, columns]",
                            tensor.name, tensor.shape
                        )));
                    }
                    let length = (tensor.bytes.end - tensor.bytes.start) / *count as u64;
                    for expert in 0..*count {
                        let start = tensor.bytes.start + expert as u64 * length;
                        let stored = plain(number, tensor, shape.to_vec(), start..start + length);
                        add(header, format!("{prefix}.{expert}.{matrix}.weight"), stored)?;
                    }
                }
            }
        }
        Ok(tensors)
    }

    /// The opened files, in the order that [`Stored::shard`] counts them in.
    pub fn into_shards(self) -> Vec<Shard> {
        self.headers.into_iter().map(|header| header.shard).collect()
    }
}

/// A tensor as it is stored.
fn plain(shard: usize, tensor: &Description, shape: Vec<usize>, bytes: Range<u64>) -> Stored {
    Stored {
        shard,
        dtype: tensor.dtype.into(),
        shape,
        bytes,
        arrangement: Arrangement::Plain,
    }
}

fn architecture_of(header: &Header) -> Result<&'static Architecture, CheckpointError> {
    let kind = header.text("general.type").unwrap_or("model");
    if kind != "model" {
        return Err(header.invalid(format!(
            "it holds no model, but a part of one (general.type is {kind:?})"
        )));
    }
    let name = header.text("general.architecture");
    let name = name.ok_or_else(|| header.invalid("the key general.architecture is missing"))?;
    architecture::find(name).ok_or_else(|| CheckpointError::Unsupported {
        feature: "architecture of a GGUF file",
        found: name.to_owned(),
        supported: format!(
            "{}; take the safetensors of the model that the file was made from",
            architecture::names()
        ),
    })
}

/// Whether the model of this first file has an architecture that is read; nothing is said of files that cannot be read.
pub(super) fn is_unsupported(first: &Path) -> bool {
    Header::open(first).is_ok_and(|header| {
        let name = header.text("general.architecture");
        name.is_some_and(|name| architecture::find(name).is_none())
    })
}
