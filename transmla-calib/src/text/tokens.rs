//! Text to token ids and back.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `tokenizer`, `tokenizer_file` | the tokenizer of a model folder, and its file, checked before it is used |
//! | `pieces` | tokenising long texts in bounded memory |
//! | `stream` | text of ids that come one at a time |

pub(crate) mod pieces;
pub(crate) mod stream;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_file;
