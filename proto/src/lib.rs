//! Bytes to types and back, for every protocol that ehpc-store speaks.
//!
//! This crate does no I/O, reads no clock, is not asynchronous and has no `unsafe`. Every decoder
//! checks a length against its limit and against the bytes that are really there before it allocates.

pub mod binlog;
pub mod codec;
pub mod http;
pub mod http1;
pub mod mount;
pub mod mysql;
pub mod nfs3;
pub mod nfsacl;
pub mod nlm;
pub mod nsm;
pub mod portmap;
pub mod posix_acl;
pub mod record;
pub mod replication;
pub mod rpc;
pub mod xdr;
