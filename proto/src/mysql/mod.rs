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

use serde::{Deserialize, Serialize};

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

/// Whose dialect a server speaks: they differ in GTIDs, in variables, and in what a replica says.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Flavor {
    /// MariaDB 10.0 and later.
    MariaDb,
    /// MySQL 5.6 and later, and what is built from it (Percona Server).
    MySql,
}

impl Flavor {
    /// What a version string says: MariaDB writes its name into it ("5.5.5-10.11.6-MariaDB-log", "11.4.2-MariaDB").
    pub fn of_version(version: &str) -> Flavor {
        if version.to_ascii_lowercase().contains("mariadb") { Flavor::MariaDb } else { Flavor::MySql }
    }
}
