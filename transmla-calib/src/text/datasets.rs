//! Datasets by name or path, and the files of their splits.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `dataset` | datasets by name or path |
//! | `text_rows` | the rows of a split, and where they are from |
//! | `named` | the datasets known by name and where the hub keeps them |
//! | `split`, `folder` | the splits, and how their files are found in a folder in hub layout |

pub(crate) mod dataset;
pub(crate) mod folder;
pub(crate) mod named;
pub(crate) mod split;
pub(crate) mod text_rows;
