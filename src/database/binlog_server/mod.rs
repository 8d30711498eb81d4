//! The archive as a server that replicas follow: stock MariaDB and MySQL take their log from it, so that XA, data
//! definition, collations and parallel apply are their own code.
//!
//! On a connection: `login`, then questions (`answers`), then the log (`start` finds where, `selection` what,
//! `stream` sends it). Only durable bytes and whole events are sent.

pub mod answers;
mod archived;
pub mod connection;
pub mod feed;
pub mod listener;
pub mod login;
pub mod packets;
pub mod registry;
pub mod selection;
pub mod start;
pub mod statement;
pub mod stream;
pub mod window;

#[cfg(test)]
mod tests;

pub use answers::Identity;
pub use archived::OneLineage;
pub use feed::{Feed, FeedFile};
pub use listener::BinlogServer;
pub use registry::ReplicaStatus;
