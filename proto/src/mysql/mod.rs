//! The client/server protocol of MySQL and MariaDB, as far as a replica and a binlog server need it: packets,
//! handshake, authentication, a few commands and answers.
//!
//! Source: the "Client/Server Protocol" chapters of MySQL's internals manual and of MariaDB's knowledge base.
