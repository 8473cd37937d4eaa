//! Writing checkpoints: what was written is what is read, and a target is never half there.

mod fixture;
mod full_disk;
mod killed;
mod processes;
mod refusals;
mod replacing;
mod round_trip;
