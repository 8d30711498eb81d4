//! Streaming of changes to the backup: session (pure), link over mutual TLS, pairing, sender, receiver, mirror.

pub mod connector;
pub mod identity;
pub mod link;
mod link_tests;
pub mod mirror;
mod overlay;
pub mod pairing;
mod read;
mod read_content;
pub mod mirror;
pub mod pairing;
pub mod receiver;
pub mod session;
pub mod transport;

#[cfg(test)]
