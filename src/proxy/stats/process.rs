//! What the process knows of itself besides what runs in it.

use crate::proxy::state::Running;
use std::sync::atomic::Ordering::Relaxed;

/// Facts for `show info` and the page.
#[derive(Clone, PartialEq, Eq, Debug)]
#[allow(missing_docs)]
pub struct Process {
    pub id: u32,
    pub threads: u16,
    /// `RLIMIT_NOFILE`, the soft limit.
    pub descriptors: u64,
    /// `node`, else the host's name.
    pub node: String,
    /// Log lines that no target took.
    pub dropped_logs: u64,
}

impl Process {
    /// This process. What only its logs know is left at 0.
    pub fn of(running: &Running) -> Process {
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
        Process {
            id: std::process::id(),
            threads: running.threads.load(Relaxed),
            descriptors: limit.current.unwrap_or(u64::MAX),
            node: running.config.global.node.clone().unwrap_or_else(host),
            dropped_logs: 0,
        }
    }
}
