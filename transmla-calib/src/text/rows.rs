//! Rows of text in files of every format.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `file` | one file, whatever its format |
//! | `parquet_rows`, `parquet_guard`, `thrift` | parquet, and what it asks for before it is decoded |
//! | `json_rows`, `json_document`, `json_records` | JSON, a record on each line or as one document |
//! | `plain_rows` | paragraphs or lines |
//! | `unicode` | UTF-8 from any encoding |
//! | `column`, `collected` | which column is the text; rows within limits |
//! | `chat`, `chat_form` | the messages of a chat; chats as text, in a model's template or plain |

pub(crate) mod chat;
pub(crate) mod chat_form;
pub(crate) mod collected;
pub(crate) mod column;
pub(crate) mod file;
pub(crate) mod json_document;
pub(crate) mod json_records;
pub(crate) mod json_rows;
pub(crate) mod parquet_guard;
pub(crate) mod parquet_rows;
pub(crate) mod plain_rows;
pub(crate) mod thrift;
pub(crate) mod unicode;
