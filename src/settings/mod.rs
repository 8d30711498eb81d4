//! What the operator wrote: units, `cluster.toml`, and every problem with it at once.
//!
//! `document` reads TOML with positions, `cluster` gives it meaning, `environment` looks at the machine
//! (directories, ports) before anything starts. Nothing here starts or changes anything.

pub mod cluster;
mod conflicts;
pub mod database;
mod document;
pub mod environment;
pub mod exports;
mod front;
pub mod limits;
pub mod ports;
pub mod problem;
mod sections;
#[cfg(test)]
mod tests;
pub mod units;

pub use cluster::{
    Backup, Cluster, Durability, Export, Host, Log, LogFormat, LogLevel, Nfs1, PortmapMode, WatcherChoice,
};
pub use database::{Database, DatabaseAddress, DatabaseTls, MYSQL_PORT, OnGap, Standby, StandbyMode};
pub use front::{ProxyRole, WebNode};
pub use limits::NfsLimits;
pub use problem::{Problem, Problems, Site};
pub use units::{Bytes, HostPort, Seconds};
