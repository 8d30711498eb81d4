//! What tests and benchmarks of ehpc-store share: the real peers, and the product itself as a process.

pub mod bench;
pub mod cluster;
pub mod cpio;
pub mod database;
pub mod lan;
pub mod microvm;
pub mod mount;
pub mod nfs_client;
pub mod process;
