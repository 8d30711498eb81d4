//! Streaming of changes to the backup: session (pure), link over mutual TLS, pairing, sender, receiver, mirror.

mod build;
pub mod link;
mod overlay;
mod read;
mod read_content;
mod resolve;
pub mod sender;
pub mod session;
