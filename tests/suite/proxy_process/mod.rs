//! The proxy's processes with their real peer: HAProxy's sockets are taken over under load and given back, reloads lose
//! no connection, the start order and its privileges, the log after a restart of syslog.

mod adoption;
mod load;
mod master;
pub(crate) mod process;
mod reload;
mod scarce;
mod start;
