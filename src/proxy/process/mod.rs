//! The life of the proxy's processes: arguments, start order, listening sockets that outlive them, master, end.
//!
//! ```text
//! start      command line -> files -> limits -> sockets -> fork
//!   gather   what the processes before leave: `sockets` (HAProxy's way), `handover` (ours), `adopt` (without asking)
//!   open     takes it, opens the rest
//! master     -W: forks workers, becomes itself anew on a reload
//! worker     identity, engine, signals; gives to its successor
//! ```

mod adopt;
mod arguments;
mod exported;
mod gather;
mod handover;
mod identity;
mod inherited;
mod limits;
mod load;
mod master;
mod notices;
mod open;
mod sampling;
mod service_manager;
mod sockets;
mod start;
mod version;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the role. `arguments[0]` is the program's name, the others are HAProxy's (`-f`, `-c`, `-D`, ...).
/// Call it before any thread exists.
pub fn main(arguments: &[OsString]) -> ExitCode {
    start::main(arguments)
}
