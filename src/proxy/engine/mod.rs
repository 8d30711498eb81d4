//! The engine: moves bytes between clients and servers.
//!
//! ```text
//! run          one thread a core; each has a runtime, sockets and pools of its own
//!   thread     what a thread owns; commands from outside (`Engine`)
//!   listener   accepts while the gates (maxconn) have room
//!     http     a client's connection: head -> rules -> server -> answer -> log, again
//!     tcp      `mode tcp`: a server, then a tunnel
//! dial, idle   connections to servers: new ones, and those that wait for the next request
//! tunnel       bytes both ways
//! stream, deadline, buffer, live   a socket, the timer of a connection, memory, the session's row
//! ```
//!
//! A connection is one task of the thread that accepted it and never leaves it. What threads share is in `state`:
//! atomics, and queues that only a request that has to wait touches.

mod accept;
mod buffer;
mod deadline;
mod dial;
mod fault;
mod http;
mod idle;
mod live;
mod persist;
mod record;
mod route;
mod server;
mod session;
mod stream;
mod tcp;
mod thread;
mod tunnel;
mod wait;

#[cfg(test)]
mod tests;

pub use fault::note_panics;
pub use live::{Doing, SessionRow, Which};
pub use thread::{Engine, OpenListener, Service, Start, run};
