//! The database beside the share: its binary log on the backup as it is written, base snapshots, a standby, any moment
//! back, and proof that all of it is equal.

pub mod archive;
pub mod base;
pub mod binlog_server;
pub mod checks;
pub mod dialect;
pub mod dsn;
pub mod link;
pub mod mark;
pub mod moment;
pub mod preflight;
pub mod restore;
pub mod server;
pub mod source;
pub mod sql;
pub mod standby;
