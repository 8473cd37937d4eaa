//! What must come out exactly: with nothing cut, a conversion keeps the function.

mod biases;
#[path = "../common/mod.rs"]
mod common;
mod conversion;
mod families;
mod formats;
mod gguf;
mod key_norm;
mod odd;
mod plain;
