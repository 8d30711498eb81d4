//! Binary logs of MySQL and MariaDB: event headers, the few bodies that matter, GTIDs, transaction borders.
//!
//! Source: "Replication Protocol" of MariaDB's knowledge base and the "Binary Log" chapters of MySQL's internals manual.
