//! What a panic does: it is logged as an event, and ends the node if its thread was one that nobody replaces.
//!
//! A fault in one request ends that request only. A thread that everything depends on is different: without it the
//! node would look alive and do nothing. It ends, and whoever supervises it starts it again.

use super::assemble::Faults;
use std::panic;
use std::thread;

/// Threads without which a role does not do its work.
const NEEDED: &[&str] = &[
    "sender",
    "scan",
    "fanotify",
    "inotify",
    "applier",
    "store-write",
    "store-sync",
    "pack-flush",
    "archive-write",
];

/// Takes effect for the whole process.
pub(super) fn report_to(faults: Faults) {
    panic::set_hook(Box::new(move |info| {
        let current = thread::current();
        let name = current.name().unwrap_or("?");
        let place = info.location().map_or("an unknown place".to_owned(), ToString::to_string);
        let payload = info.payload();
        let what = payload.downcast_ref::<&str>().copied();
        let what =
            what.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message");
        tracing::error!(thread = name, %place, "panic: {what}");
        if NEEDED.contains(&name) {
            // Full: the node is ending already.
            let _ = faults.try_send(anyhow::anyhow!(
                "the thread \"{name}\" ended at {place}: {what}. Nothing that was promised is lost: start it again"
            ));
        }
    }));
}
