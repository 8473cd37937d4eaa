//! Damaged, incomplete and hostile model folders: every one is an error that says what is wrong, none a panic.

mod changed;
mod config;
mod eight_bits;
mod fixture;
mod fused;
mod gguf;
mod headers;
mod index;
mod mutations;
mod pickle;
mod token_files;
mod weights;
