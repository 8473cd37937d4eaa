//! The binary as its users meet it: exit codes, messages, files.

mod bad_input;
mod cache_formats;
mod chat;
mod convert;
mod damage;
mod doctor;
mod documents;
mod export;
mod first_hour;
mod gguf_input;
mod heal;
mod hub;
mod interop;
mod library;
mod messages;
mod odd;
mod own_text;
mod privacy;
#[cfg(unix)]
mod processes;
mod push;
mod read_back;
mod readmes;
mod recipes;
mod reliability;
mod report;
mod save_path;
mod snapshots;
#[cfg(unix)]
mod special_files;
mod support;
mod sweep;
mod tasks;
#[cfg(target_os = "linux")]
mod terminal;
mod texts;
#[path = "../../../transmla-checkpoint/tests/hub/upload_server.rs"]
mod upload_server;
mod usage;
mod verify;
mod walkthrough;
