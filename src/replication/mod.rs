//! Streaming of changes to the backup: session (pure), link over mutual TLS, pairing, sender, receiver, mirror.

pub mod link;
mod overlay;
mod read;
mod read_content;
pub mod session;
