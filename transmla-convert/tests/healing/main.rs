//! Healing: a converted model is trained on its original, and written as it was read.

#[path = "../common/mod.rs"]
mod common;
mod forms;
mod learning;
mod refusals;
mod resuming;
mod setting;
mod torch;
