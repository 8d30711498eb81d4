//! The client/server protocol of MySQL and MariaDB, as far as a replica and a binlog server need it: packets,
//! handshake, authentication, a few commands and answers. Everything is encoded and decoded, so that the two sides
//! test each other.
//!
//! Source: the "Client/Server Protocol" chapters of MySQL's internals manual and of MariaDB's knowledge base.

pub mod auth;
pub mod command;
pub mod fields;
pub mod handshake;
pub mod packet;
pub mod replica;
pub mod response;

pub use crate::binlog::{Checksum, Flavor};

/// Longest greeting of a server, bytes.
pub const MAX_GREETING: usize = 1024;
/// Longest single answer to a command (a row, an error), bytes.
pub const MAX_RESPONSE: usize = 64 * 1024;
/// Most rows of one answer.
pub const MAX_ROWS: usize = 10_000;
/// Longest command, bytes: a standby's `SET @slave_connect_state` can be long.
pub const MAX_QUERY: usize = 1024 * 1024;
/// Longest login packet of a client, bytes.
pub const MAX_LOGIN: usize = 16 * 1024;

/// What a server's version says of its dialect: MariaDB writes its name into it ("5.5.5-10.11.6-MariaDB-log",
/// "11.4.2-MariaDB").
pub fn flavor_of(version: &str) -> Flavor {
    if version.to_ascii_lowercase().contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql }
}
