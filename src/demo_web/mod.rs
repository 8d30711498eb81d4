//! The demonstration web node: uploads, lists and serves files of the share through NFS. It mounts nothing and needs no
//! root; it stands in for the application of the deployment guide until there is one.
//!
//! `wire` is the connection that the NFS client crate talks over, `share` what is done with files, `upload` a file on its
//! way in, `page` the HTML, `server` the addresses. It knows the share only as an NFS server's address.

mod page;
mod server;
mod share;
mod upload;
mod wire;

pub use server::{PATIENCE, Settings, serve};
pub use share::Share;

#[cfg(test)]
mod tests;
