//! Batches of token ids out of text.
//!
//! | module | what it holds |
//! | --- | --- |
//! | `documents` | rows, and how they become one text |
//! | `sample`, `noise` | random calibration samples, and such with random words in them |
//! | `mix`, `holdout` | samples from several texts; samples set aside |
//! | `openings` | what users say in chats that a model writes itself |
//! | `windows` | the text that perplexity is measured on |

pub(crate) mod documents;
pub(crate) mod holdout;
pub(crate) mod mix;
pub(crate) mod noise;
pub(crate) mod openings;
pub(crate) mod sample;
pub(crate) mod windows;
