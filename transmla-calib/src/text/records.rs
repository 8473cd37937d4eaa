//! Whole records of datasets, for tasks that ask questions: every column, nested ones too.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `value` | what a column holds |
//! | `files` | the files of a split of a dataset in hub layout, fetched if need be |
//! | `read` | parquet and JSON files |

pub(crate) mod files;
pub(crate) mod read;
pub(crate) mod value;
