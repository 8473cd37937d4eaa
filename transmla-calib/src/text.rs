//! Text, tokenizers and batches of token ids; knows no tensors.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `open`, `contain` | regular files, decompressed; decoders of other crates that panic on damaged files |
//! | `rows` | rows of text in parquet, JSON and plain text files |
//! | `datasets` | datasets by name or path, and the files of their splits |
//! | `records` | whole records of datasets, for tasks |
//! | `tokens` | text to token ids and back |
//! | `samples` | calibration samples and evaluation windows |

pub(crate) mod contain;
pub(crate) mod datasets;
pub(crate) mod open;
pub(crate) mod records;
pub(crate) mod rows;
pub(crate) mod samples;
pub(crate) mod tokens;

pub use contain::is_contained;
pub use datasets::dataset::{DatasetSource, load, load_with};
pub use datasets::split::Split;
pub use datasets::text_rows::{ReadOptions, TextRows};
pub use records::files::RecordSource;
pub use records::value::{Record, RecordValue};
pub use samples::documents::Documents;
pub use samples::holdout::split_holdout;
pub use samples::mix::{divide_samples, interleave};
pub use samples::noise::sample_with_noise;
pub use samples::openings::Openings;
pub use samples::sample::{SampleSpec, Sampled, sample};
pub use samples::windows::{evaluation_windows, evaluation_windows_from};
pub use tokens::chat_template::{ChatMessage, ChatTemplate};
pub use tokens::stream::TextStream;
pub use tokens::template_files::{DEFAULT_TEMPLATE, NamedTemplate, chat_templates};
pub use tokens::tokenizer::TextTokenizer;
