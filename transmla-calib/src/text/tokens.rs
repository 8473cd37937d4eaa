//! Text to token ids and back.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `tokenizer` | the tokenizer of a model folder |
//! | `guarded` | a tokenizer whose panics are errors |
//! | `tokenizer_file`, `tokenizer_parts` | reading its file; what the file asks for, checked first |
//! | `pieces` | tokenising long texts in bounded memory |
//! | `template_files` | where a model folder has its chat templates |
//! | `chat_template`, `python_json`, `python_methods` | chats as a model's own template writes them |
//! | `stream` | text of ids that come one at a time |

pub(crate) mod chat_template;
pub(crate) mod guarded;
pub(crate) mod pieces;
pub(crate) mod python_json;
pub(crate) mod python_methods;
pub(crate) mod stream;
pub(crate) mod template_files;
pub(crate) mod tokenizer;
pub(crate) mod tokenizer_file;
pub(crate) mod tokenizer_parts;
