//! What is written beside and after the attention: companions, card, GGUF, the list of files, the resume cache, room on the disk, verification.

pub mod card;
pub mod companions;
pub mod front_matter;
pub mod gguf;
pub mod json;
pub mod kept_statistics;
pub mod kept_text;
pub mod lost_rows;
pub mod manifest;
pub mod model_files;
pub mod modelling;
pub mod names;
pub mod resume_cache;
pub mod resume_start;
pub mod room;
pub mod verify;
