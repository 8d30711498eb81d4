//! ehpc-store: the back end of a small web cluster in one binary.
//!
//! Layers, lowest first (`tests/tidy.rs` holds the exact import table):
//! `host`, `observe`, `settings` | `vfs`, `store` | `nfs`, `change`, `database` | `replication` | `verify` | `dashboard` | `cli`.

pub mod change;
pub mod cli;
pub mod dashboard;
pub mod database;
pub mod demo_web;
pub mod host;
pub mod nfs;
pub mod observe;
pub mod proxy;
pub mod replication;
pub mod settings;
pub mod store;
pub mod verify;
pub mod vfs;
