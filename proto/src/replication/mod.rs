//! The replication link: what one side may say to the other.
//!
//! `state` holds the words of the data model (object, entry, batch, manifest), `message` what travels of the files,
//! `database` what travels of the database's binary log,
//! `wire` is the only place that knows the encoding (bincode) and its limits.

pub mod database;
pub mod digest;
pub mod message;
pub mod pairing;
pub mod state;
pub mod wire;

pub use state::*;
