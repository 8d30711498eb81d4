//! Streaming of changes to the backup: session (pure), link over mutual TLS, pairing, sender, receiver, mirror.

pub mod applier;
mod build;
pub mod channel;
pub mod connector;
mod dial;
pub mod identity;
pub mod link;
pub mod mirror;
mod overlay;
pub mod pairing;
pub mod queries;
mod read;
mod read_content;
pub mod receiver;
mod resolve;
pub mod sender;
pub mod session;
pub mod transport;

#[cfg(test)]
mod channel_tests;
#[cfg(test)]
mod link_tests;
