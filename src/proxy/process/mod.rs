//! The life of the proxy's processes: arguments, start order, listening sockets that outlive them, master, end.

mod adopt;
mod arguments;
mod handover;
mod identity;
mod inherited;
mod limits;
mod notices;
mod open;
mod service_manager;
mod sockets;
mod version;
