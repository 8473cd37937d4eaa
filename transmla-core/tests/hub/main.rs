//! Models and datasets from a hub: a loopback server that answers as the hub does, and caches as its clients lay them out.

#![cfg(feature = "hub")]

mod cache;
mod download;
mod refused;
mod server;
