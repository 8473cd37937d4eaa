//! Models and datasets from a hub: a loopback server that answers as the hub does or worse, and caches as its clients lay them out.

#![cfg(feature = "hub")]

mod cache;
mod download;
mod hostile;
mod layout;
mod refused;
mod server;
mod transfer;
