//! The source, on the host beside the server: a replica of our own that ships every event to the archive.

pub mod connect;
pub mod fault;
pub mod session;
