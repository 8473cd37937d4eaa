//! Models and datasets from a hub, and models to one: loopback servers that answer as the hub does or worse, and caches as its
//! clients lay them out.

#![cfg(feature = "hub")]

mod cache;
mod download;
mod hostile;
mod layout;
mod refused;
mod server;
mod transfer;
mod upload;
mod upload_server;
