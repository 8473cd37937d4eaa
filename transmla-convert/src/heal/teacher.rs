//! What a student is to predict: the original itself, or its largest logits, kept on disk before the training.

use std::path::{Path, PathBuf};

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use transmla_core::checkpoint::{CheckpointWriter, Fingerprint, read_regular};
use transmla_core::model::{OutputHead, TeacherRows, TopLogits};
use transmla_core::{Checkpoint, CoreError, Decoder, LayeredModel, StorageDtype, TensorSpec, TokenBatch};

use crate::heal::forward::{Batch, last_state};
use crate::output::resume_start::{Fields, hex};
use crate::spec::error::ConvertError;
use crate::spec::report::{Observer, Stage};

/// What a student is held against.
pub(crate) enum Teacher<'a> {
    /// A model that is run on every batch.
    Model(&'a Decoder, Box<OutputHead>),
    /// Logits on disk.
    Table(Table),
}

/// What a teacher says of a batch.
pub(crate) enum Given<'a> {
    Hidden(&'a OutputHead, Box<Tensor<2>>),
    Top(TopLogits),
}

impl Given<'_> {
    /// For the loss.
    pub fn rows(&self) -> TeacherRows<'_> {
        match self {
            Self::Hidden(head, hidden) => TeacherRows::Model(head, hidden),
            Self::Top(top) => TeacherRows::Top(top),
        }
    }
}

impl<'a> Teacher<'a> {
    /// A model, which is run on every batch.
    ///
    /// # Errors
    /// Its head cannot be read.
    pub fn model(model: &'a Decoder) -> Result<Self, CoreError> {
        Ok(Self::Model(model, Box::new(model.head()?)))
    }

    /// What it says of some sequences.
    ///
    /// # Errors
    /// The model or the file cannot be read.
    pub fn of(&self, batch: Batch<'_>, tokens: &TokenBatch) -> Result<Given<'_>, CoreError> {
        match self {
            Self::Model(model, head) => Ok(Given::Hidden(head, Box::new(last_state(*model, tokens)?))),
            Self::Table(table) => table.of(batch.rows).map(Given::Top),
        }
    }
}

/// The largest logits of a model on a text, on disk: two matrices `[sequences, seq · count]`.
#[derive(Debug)]
pub(crate) struct Table {
    checkpoint: Checkpoint,
    shape: [usize; 2],
    count: usize,
}

const IDS: &str = "ids";
const LOGS: &str = "logs";

/// What a table follows from, and what it holds.
#[derive(Serialize, Deserialize, PartialEq)]
struct Label {
    fingerprint: String,
    contents: String,
}

const LABEL: &str = "teacher.json";

/// Most bytes of a label, which has some hundreds.
const LARGEST_LABEL: u64 = 1 << 16;

/// What is put on disk of which model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Teaching<'a> {
    pub original: &'a Decoder,
    pub text: &'a TokenBatch,
    /// Logits of each token.
    pub count: usize,
    /// Sequences that go through the model together.
    pub at_once: usize,
}

impl Table {
    /// That in a folder, if it follows from the same, or a new one there.
    ///
    /// # Errors
    /// The original fails, or the folder cannot be written.
    pub fn find_or_make(
        folder: &Path,
        teaching: &Teaching<'_>,
        observer: &mut dyn Observer,
    ) -> Result<Self, ConvertError> {
        let fingerprint = hex(&teaching.fingerprint()?);
        if let Some(found) = Self::find(folder, teaching, &fingerprint) {
            return Ok(found);
        }
        let Teaching { original, text, .. } = *teaching;
        let count = teaching.count.min(original.config().vocab_size);
        let shape = [text.batch(), text.sequence() * count];
        let specs = [IDS, LOGS].map(|name| TensorSpec::new(name, shape));
        let mut writer = CheckpointWriter::create(folder, &specs, StorageDtype::F32, u64::MAX, true)?;
        let head = original.head()?;
        observer.begin(Stage::Teach);
        let all: Vec<usize> = (0..text.batch()).collect();
        for rows in all.chunks(teaching.at_once.max(1)) {
            let tokens = Batch { text, rows }.tokens()?;
            let top = head.top_logits(&last_state(original, &tokens)?, count)?;
            writer.append(IDS, &top.ids)?;
            writer.append(LOGS, &top.logs)?;
            observer.advance(rows.last().map_or(0, |row| row + 1) as u64, text.batch() as u64);
        }
        writer.finish()?;
        let label = Label {
            fingerprint: fingerprint.clone(),
            contents: hex(&Checkpoint::open(writer.work_folder())?.fingerprint()?),
        };
        let encoded = serde_json::to_vec(&label).map_err(ConvertError::encode(LABEL))?;
        writer.write_file(LABEL, &encoded)?;
        let folder: PathBuf = writer.commit()?;
        observer.end(Stage::Teach, None);
        Ok(Self {
            checkpoint: Checkpoint::open(&folder)?,
            shape,
            count,
        })
    }

    /// What cannot be read is as good as absent.
    fn find(folder: &Path, teaching: &Teaching<'_>, fingerprint: &str) -> Option<Self> {
        let label: Label = serde_json::from_slice(&read_regular(&folder.join(LABEL), LARGEST_LABEL).ok()?).ok()?;
        let checkpoint = Checkpoint::open(folder).ok()?;
        let count = teaching.count.min(teaching.original.config().vocab_size);
        let shape = [teaching.text.batch(), teaching.text.sequence() * count];
        [IDS, LOGS]
            .iter()
            .try_for_each(|name| checkpoint.check(name, &shape))
            .ok()?;
        let found = Label {
            fingerprint: fingerprint.to_owned(),
            contents: hex(&checkpoint.fingerprint().ok()?),
        };
        (found == label).then_some(Self {
            checkpoint,
            shape,
            count,
        })
    }

    fn of(&self, rows: &[usize]) -> Result<TopLogits, CoreError> {
        let read = |name: &str| {
            let mut values = Vec::new();
            self.checkpoint
                .rows(name, self.shape, rows.iter().copied(), &mut values)?;
            Ok::<_, CoreError>(values)
        };
        Ok(TopLogits {
            count: self.count,
            ids: read(IDS)?,
            logs: read(LOGS)?,
        })
    }
}

impl Teaching<'_> {
    fn fingerprint(&self) -> Result<Fingerprint, ConvertError> {
        let mut fields = Fields::default();
        fields.add("version", concat!(env!("CARGO_PKG_VERSION"), "/1"));
        fields.add("weights", self.original.checkpoint().fingerprint()?);
        let config = serde_json::to_vec(&self.original.config().raw).map_err(ConvertError::encode("config.json"))?;
        fields.add("config.json", config);
        fields.add("device", format!("{:?}", self.original.device()));
        fields.add("count", self.count.to_le_bytes());
        fields.add("at once", self.at_once.to_le_bytes());
        fields.add("sequence", self.text.sequence().to_le_bytes());
        let ids: Vec<u8> = self.text.ids().iter().flat_map(|id| id.to_le_bytes()).collect();
        fields.add("text", ids);
        Ok(fields.end())
    }
}
